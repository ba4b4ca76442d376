// The greeter as a JSON-RPC server: service go.micro.srv.greeter, method Say.Hello.
//
//	go run ./examples/greeter/go/rpcserver
//	curl -H 'Content-Type: application/json' -d '{"name": "John"}' http://127.0.0.1:8081/greeter/say/hello
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"

	"github.com/micro/sidecar/examples/greeter/go/sidecar"
)

const (
	name    = "go.micro.srv.greeter"
	maxBody = 4 << 20 // bytes
)

// call is {"method": "Say.Hello", "params": [{"name": "John"}], "id": 0}.
type call struct {
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
	ID     uint64            `json:"id"`
}

// answer is {"id": 0, "result": {"msg": "Hello John"}, "error": null}.
type answer struct {
	ID     uint64 `json:"id"`
	Result any    `json:"result"`
	Error  any    `json:"error"`
}

func main() {
	if err := sidecar.Run(name, http.HandlerFunc(serve), nil); err != nil {
		log.Fatal(err)
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	var c call
	var a answer
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&c)
	switch {
	case err != nil:
		a.Error = failure(http.StatusBadRequest, fmt.Sprintf("not a JSON-RPC call: %v", err))
	case len(c.Params) == 0:
		a.Error = failure(http.StatusBadRequest, "not a JSON-RPC call: no params")
	case c.Method == "Say.Hello":
		a.Result, a.Error = hello(c.Params[0])
	case c.Method == "Debug.Health":
		a.Result = map[string]string{"status": "ok"}
	default:
		a.Error = failure(http.StatusNotFound, fmt.Sprintf("method %s not found", c.Method))
	}
	a.ID = c.ID
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(a); err != nil {
		log.Printf("answer: %v", err)
	}
}

func hello(param json.RawMessage) (result, err any) {
	var request struct{ Name string }
	if json.Unmarshal(param, &request) != nil || request.Name == "" {
		return nil, failure(http.StatusBadRequest, `expected a name, as in {"name": "John"}`)
	}
	return map[string]string{"msg": "Hello " + request.Name}, nil
}

// failure is an error as go-micro writes it: an object, as JSON, in a string.
func failure(code int, detail string) string {
	text, err := json.Marshal(map[string]any{"id": name, "code": code, "detail": detail, "status": http.StatusText(code)})
	if err != nil {
		return detail
	}
	return string(text)
}
