package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/micro/sidecar/registry"
)

// maxShape is how deep the shape of a request is printed.
const maxShape = 4

// printJSON writes v as one line of JSON.
func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// printIndented writes JSON for people, its order and numbers as they came.
// What is no JSON is written as it is.
func printIndented(w io.Writer, raw []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(raw), "", "  "); err != nil {
		out.Reset()
		out.Write(raw)
	}
	out.WriteByte('\n')
	_, err := w.Write(out.Bytes())
	return err
}

// printService writes the versions of a service as tables.
func printService(out io.Writer, name string, versions []registry.Service) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "service  %s\n", visible(name))
	for _, v := range versions {
		fmt.Fprintf(w, "\nversion  %s\n", visible(orDash(v.Version)))
		if len(v.Metadata) > 0 {
			fmt.Fprintf(w, "metadata  %s\n", metadataText(v.Metadata))
		}
		fmt.Fprint(w, "\nNODE\tADDRESS\tPORT\tMETADATA\n")
		for _, n := range v.Nodes {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", visible(n.ID), visible(n.Address), portText(n.Port), metadataText(n.Metadata))
		}
		if len(v.Endpoints) > 0 {
			fmt.Fprint(w, "\nENDPOINT\tREQUEST\tRESPONSE\tMETADATA\n")
			for _, e := range v.Endpoints {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", visible(e.Name), shape(e.Request), shape(e.Response), metadataText(e.Metadata))
			}
		}
	}
	return w.Flush()
}

// portText writes a node's port; one on a unix socket has none.
func portText(port int) string {
	if port == 0 {
		return "-"
	}
	return strconv.Itoa(port)
}

// shape writes a value's form on one line: "Request{name string, tags []string}".
func shape(v *registry.Value) string {
	if v == nil {
		return "-"
	}
	return orDash(shapeText(v, 0))
}

func shapeText(v *registry.Value, depth int) string {
	text := visible(v.Type)
	if len(v.Values) == 0 {
		return text
	}
	if depth == maxShape {
		return text + "{…}"
	}
	fields := make([]string, 0, len(v.Values))
	for _, field := range v.Values {
		if field != nil {
			fields = append(fields, strings.TrimSpace(visible(field.Name)+" "+shapeText(field, depth+1)))
		}
	}
	return text + "{" + strings.Join(fields, ", ") + "}"
}

// metadataText writes metadata on one line, sorted by key.
func metadataText(m map[string]string) string {
	if len(m) == 0 {
		return "-"
	}
	pairs := make([]string, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		pairs = append(pairs, visible(key)+"="+visible(m[key]))
	}
	return strings.Join(pairs, " ")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// visible returns s, with what a terminal or a table could take for an order
// escaped: names in a registry are anybody's.
func visible(s string) string {
	if printable(s) {
		return s
	}
	quoted := fmt.Sprintf("%+q", s)
	return quoted[1 : len(quoted)-1]
}

// printable reports whether s is text that stays on its line.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// messageLine is a message as a line: a CloudEvent with its type, source and
// id, any other as its body.
func messageLine(m received) string {
	if text, ok := cloudEventLine(m); ok {
		return text
	}
	return bodyLine(m.Body)
}

// bodyLine is a body as a line: itself when it is text of one line (a line
// break at its end does not count), else in base64.
func bodyLine(body []byte) string {
	text := strings.TrimSuffix(string(body), "\n")
	if printable(strings.ReplaceAll(text, "\t", " ")) {
		return text
	}
	return base64.StdEncoding.EncodeToString(body)
}
