// Everything a program asks of its sidecar, one HTTP request each.
//
//	go run ./examples/greeter/go/client [NAME]
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/micro/sidecar/examples/greeter/go/sidecar"
)

func main() {
	log.SetFlags(0)
	name := "John"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	request, err := json.Marshal(map[string]string{"name": name})
	if err != nil {
		log.Fatal(err)
	}
	form := url.Values{"service": {"go.micro.srv.greeter"}, "method": {"Say.Hello"}, "request": {string(request)}}
	query := url.Values{"name": {name}}

	fmt.Println("services:", ask("GET", "/registry", "", nil))
	fmt.Println("by path: ", ask("POST", "/greeter/say/hello", string(request), header{"Content-Type": "application/json"}))
	fmt.Println("by /rpc: ", ask("POST", "/rpc", form.Encode(), header{"Content-Type": "application/x-www-form-urlencoded"}))
	fmt.Println("proxied: ", ask("GET", "/greeterweb/hello?"+query.Encode(), "", header{"Micro-Handler": "proxy"}))

	// "micro subscribe greetings" in another terminal shows the message.
	ask("POST", "/broker?topic=greetings", "Hello "+name, header{"Content-Type": "text/plain"})
	fmt.Println("published")
}

type header map[string]string

// ask sends a request to the sidecar and returns the answer's text.
func ask(method, path, body string, h header) string {
	request, err := http.NewRequest(method, sidecar.URL()+path, strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	for name, value := range h {
		request.Header.Set(name, value)
	}
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		log.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		log.Fatalf("%s: %s %s", path, response.Status, text)
	}
	return strings.TrimSpace(string(text))
}
