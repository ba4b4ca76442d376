package cli

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const wholeFile = `# the sidecar of foo
address: [ "127.0.0.1:8081", "[::1]:8081" ]
handler: web          # as of old
enable_stats: yes
register_ttl: 60
max_body_size: 1MiB
cors:
  - https://a.example
  - https://b.example
server_name: foo
server_address: 127.0.0.1:9090
server_metadata:
  zone: a,b
  weight: 3
transport: http
`

func TestFile(t *testing.T) {
	text := strings.Replace(wholeFile, "yes", "true", 1)
	c := config(t, nil, configFile(t, text)).Sidecar
	if !slices.Equal(c.Addresses, []string{"127.0.0.1:8081", "[::1]:8081"}) || c.Handler != "proxy" || !c.EnableStats ||
		c.RegisterTTL.Seconds() != 60 || c.MaxBodySize != 1<<20 || !slices.Equal(c.CORS, []string{"https://a.example", "https://b.example"}) ||
		!maps.Equal(c.App.Metadata, map[string]string{"zone": "a,b", "weight": "3"}) {
		t.Errorf("got %+v", c)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "null\n", "{}\n"} {
		if got, err := parseFile([]byte(empty), settingsTable()); err != nil || len(got.values) != 0 || len(got.apps) != 0 {
			t.Errorf("%q: %v, %v", empty, got, err)
		}
	}
}

func TestFileMistakes(t *testing.T) {
	tests := []struct{ text, want string }{
		{wholeFile, `4: enable_stats: "yes": expected true or false`},
		{"a\n", "1: expected lines of the form name: value"},
		{"- handler\n", "1: expected lines of the form name: value"},
		{"handler: rpc\n\nhandler: proxy\n", "3: handler stands in line 1 already"},
		{"handler:\n", "1: handler: has no value"},
		{"handler: [rpc]\n", "1: handler: expected one value"},
		{"handler: {rpc: 1}\n", "1: handler: expected one value"},
		{"cors: [[x]]\n", "1: cors: expected a list of texts"},
		{"server_metadata: {a: [b]}\n", "1: server_metadata: expected a mapping of texts to texts"},
		{"? [a]\n: b\n", "1: expected the name of a setting"},
		{"handler: &x rpc\nselector: *x\n", "2: selector: expected one value"},
		{"registryaddress: x\n", `1: unknown setting "registryaddress" (did you mean registry_address?)`},
		{"handler: rpc\n---\nhandler: proxy\n", "expected one YAML document, not several"},
		{"handler: rpc\n  x\n : y", "2: "},
		{"handler: \"\x01\"\n", "1: "},
		{strings.Repeat("#", maxFile+1), "1: the file is larger than"},
	}
	for _, test := range tests {
		_, err := parseFile([]byte(test.text), settingsTable())
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.40q: %v, want %q", test.text, err, test.want)
		}
	}
}

var atALine = regexp.MustCompile(`^[0-9]+: .`)

// Whatever a file holds: values of known settings, or an error with a line.
func FuzzParseFile(f *testing.F) {
	f.Add([]byte(wholeFile))
	f.Add([]byte("handler: [a, {b: c}]\n"))
	f.Add([]byte("applications: [{name: a, address: h:1, healthcheck: {url: tcp://h:1}}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("? |\n x\n: y\n--- !!binary\n"))
	table := settingsTable()
	f.Fuzz(func(t *testing.T, data []byte) {
		content, err := parseFile(data, table)
		if err != nil {
			if !atALine.MatchString(err.Error()) {
				t.Errorf("an error without a line: %v", err)
			}
			return
		}
		values := content.values
		for _, app := range content.apps {
			values = append(values, app.values...)
		}
		for _, v := range values {
			if v.line < 1 || v.line > 1+bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte("\r")) {
				t.Errorf("%s stands in line %d", v.name, v.line)
			}
		}
	})
}
