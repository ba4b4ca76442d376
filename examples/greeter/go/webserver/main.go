// The greeter as an ordinary web server: service go.micro.srv.greeterweb.
//
//	go run ./examples/greeter/go/webserver
//	curl -H 'Micro-Handler: proxy' 'http://127.0.0.1:8081/greeterweb/hello?name=John'
//
// The sidecar hands on the request as it came, /greeterweb included.
package main

import (
	"encoding/json"
	"log"
	"net/http"

	"github.com/micro/sidecar/examples/greeter/go/sidecar"
)

const name = "go.micro.srv.greeterweb"

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, "nothing at "+r.URL.Path)
	})
	mux.HandleFunc("GET /greeterweb/hello", hello)
	if err := sidecar.Run(name, mux, map[string]string{"protocol": "http"}); err != nil {
		log.Fatal(err)
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	who := r.URL.Query().Get("name")
	if who == "" {
		fail(w, http.StatusBadRequest, "expected a name, as in /greeterweb/hello?name=John")
		return
	}
	reply(w, http.StatusOK, map[string]string{"msg": "Hello " + who})
}

// fail answers with an error in the form the sidecar's own have.
func fail(w http.ResponseWriter, code int, detail string) {
	reply(w, code, map[string]any{"id": name, "code": code, "detail": detail, "status": http.StatusText(code)})
}

func reply(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(value); err != nil {
		log.Printf("answer: %v", err)
	}
}
