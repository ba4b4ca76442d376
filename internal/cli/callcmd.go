package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// connectMargin is the time that a call through a sidecar may take above its
// own limit.
const connectMargin = 500 * time.Millisecond

func callCommand() command {
	return command{
		use: "call SERVICE METHOD [JSON]", aliases: []string{"query"}, short: "make an RPC and print the answer",
		long: "SERVICE is the full name. JSON is the request, {} if left out, - to read it\nfrom the standard input.",
		examples: []string{
			`micro call go.micro.srv.greeter Say.Hello '{"name":"John"}'`,
			"micro call go.micro.srv.greeter Say.Hello --address=10.0.0.5:9090 --timeout=1s",
		},
		complete: []completer{serviceNames, methodNames},
		own:      []*setting{nodeAddressSetting(), timeoutSetting()}, groups: clientGroups, run: callService,
	}
}

func callService(ctx context.Context, i *invocation) error {
	request := []byte("{}")
	if len(i.args) > 2 {
		var err error
		if request, err = i.text(ctx, i.args[2]); err != nil {
			return err
		}
	}
	if !json.Valid(request) {
		return errors.New("the request is no JSON")
	}
	return i.with(ctx, false, func(c client) error {
		answer, err := i.call(ctx, c, call{
			service: i.args[0], method: i.args[1], address: i.cfg.nodeAddress.String(), request: request,
		})
		if err != nil {
			return err
		}
		return printIndented(i.out, answer)
	})
}

// call makes an RPC within --client_request_timeout. A sidecar, which keeps
// that time itself, gets a little longer to say what ran out of it.
func (i *invocation) call(ctx context.Context, c client, what call) (json.RawMessage, error) {
	what.timeout = i.cfg.Sidecar.RequestTimeout
	limit := what.timeout
	if i.cfg.ProxyAddress != nil {
		limit += limit/10 + connectMargin
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return c.Call(ctx, what)
}

func healthCommand() command {
	return command{
		use: "health SERVICE", short: "ask every node of a service for its health",
		examples: []string{"micro health go.micro.srv.greeter"}, complete: []completer{serviceNames},
		groups: clientGroups, run: everyNode("Debug.Health", printHealth),
	}
}

func statsCommand() command {
	return command{
		use: "stats SERVICE", short: "ask every node of a service for its statistics",
		examples: []string{"micro stats go.micro.srv.greeter --output=json"}, complete: []completer{serviceNames},
		groups: clientGroups, run: everyNode("Debug.Stats", printStats),
	}
}

// nodeAnswer is what one node said.
type nodeAnswer struct {
	Node    string          `json:"node"`
	Address string          `json:"address"`
	Version string          `json:"version"`
	Answer  json.RawMessage `json:"answer,omitempty"`
	Error   string          `json:"error,omitempty"`
}

// everyNode makes the command that calls method on each node of a service. It
// fails when any of them does, but shows them all.
func everyNode(method string, show func(io.Writer, string, []nodeAnswer) error) func(context.Context, *invocation) error {
	return func(ctx context.Context, i *invocation) error {
		return i.with(ctx, false, func(c client) error {
			answers, err := i.askNodes(ctx, c, i.args[0], method)
			if err != nil {
				return err
			}
			if i.json() {
				err = printJSON(i.out, answers)
			} else {
				err = show(i.out, i.args[0], answers)
			}
			if err != nil {
				return err
			}
			return verdict(i.args[0], answers)
		})
	}
}

// maxAsked bounds how many nodes are asked at the same time.
const maxAsked = 16

// askNodes calls the method on every node and returns the answers in the order
// of the registry.
func (i *invocation) askNodes(ctx context.Context, c client, service, method string) ([]nodeAnswer, error) {
	lookup, cancel := context.WithTimeout(ctx, i.cfg.Sidecar.RequestTimeout)
	defer cancel()
	versions, err := c.Get(lookup, service)
	if err != nil {
		return nil, err
	}
	answers := []nodeAnswer{}
	for _, v := range versions {
		for _, n := range v.Nodes {
			answers = append(answers, nodeAnswer{Node: n.ID, Address: n.HostPort(), Version: v.Version})
		}
	}
	var tasks sync.WaitGroup
	slots := make(chan struct{}, maxAsked)
	for n := range answers {
		slots <- struct{}{}
		tasks.Go(func() {
			defer func() { <-slots }()
			i.askNode(ctx, c, service, method, &answers[n])
		})
	}
	tasks.Wait()
	return answers, nil
}

func (i *invocation) askNode(ctx context.Context, c client, service, method string, a *nodeAnswer) {
	answer, err := i.call(ctx, c, call{
		service: service, method: method, address: a.Address, request: json.RawMessage("{}"),
	})
	switch err = plain(ctx, err, i.cfg.Sidecar.RequestTimeout); {
	case err != nil:
		a.Error = oneLine(err.Error())
	case !json.Valid(answer):
		a.Error = "the node's answer is no JSON"
	default:
		a.Answer = answer
	}
}

// verdict is the error of the nodes that failed, in one line.
func verdict(service string, answers []nodeAnswer) error {
	if len(answers) == 0 {
		return fmt.Errorf("service %s has no node", service)
	}
	failed, first := 0, ""
	for _, a := range answers {
		if a.Error != "" {
			failed++
			first = cmp.Or(first, a.Node)
		}
	}
	switch failed {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("node %s failed", visible(first))
	}
	return fmt.Errorf("%d of %d nodes failed, %s first", failed, len(answers), visible(first))
}

func printHealth(out io.Writer, service string, answers []nodeAnswer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "service  %s\n\nNODE\tADDRESS\tVERSION\tHEALTH\n", visible(service))
	for _, a := range answers {
		text := "error: " + visible(a.Error)
		if a.Error == "" {
			text = healthText(a.Answer)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", visible(a.Node), visible(a.Address), visible(orDash(a.Version)), text)
	}
	return w.Flush()
}

// healthText is the status of go-micro's answer, or all of another one's.
func healthText(answer json.RawMessage) string {
	fields, order := fieldsOf(answer)
	if len(order) == 1 && order[0] == "status" {
		return fields["status"]
	}
	return visible(string(answer))
}

func printStats(out io.Writer, service string, answers []nodeAnswer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "service  %s\n", visible(service))
	for _, a := range answers {
		fmt.Fprintf(w, "\nnode\t%s\naddress\t%s\nversion\t%s\n", visible(a.Node), visible(a.Address), visible(orDash(a.Version)))
		if a.Error != "" {
			fmt.Fprintf(w, "error\t%s\n", visible(a.Error))
			continue
		}
		fields, order := fieldsOf(a.Answer)
		for _, name := range order {
			fmt.Fprintf(w, "%s\t%s\n", visible(name), fields[name])
		}
		if len(order) == 0 {
			fmt.Fprintf(w, "answer\t%s\n", visible(string(a.Answer)))
		}
	}
	return w.Flush()
}

// fieldsOf returns the fields of a JSON object as texts, and their sorted
// names; none for another value.
func fieldsOf(raw json.RawMessage) (map[string]string, []string) {
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return nil, nil
	}
	out := make(map[string]string, len(object))
	for name, value := range object {
		text := string(value)
		var s string
		if strings.HasPrefix(text, `"`) && json.Unmarshal(value, &s) == nil {
			text = s
		}
		out[name] = visible(text)
	}
	return out, slices.Sorted(maps.Keys(out))
}
