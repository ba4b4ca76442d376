package api

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/micro/sidecar/internal/httpmsg"
)

func TestGuard(t *testing.T) {
	shop := Guard{Origins: []string{"https://shop.example"}, Hosts: []string{"micro.test"}}
	open := Guard{Origins: []string{"*"}}
	for name, test := range map[string]struct {
		guard  Guard
		method string
		host   string
		beyond bool // the listener is not on loopback
		header map[string]string
		status int // 0: it goes on
		allow  string
	}{
		"a program":                      {guard: shop, host: "127.0.0.1:8081"},
		"a name of loopback":             {guard: shop, host: "LocalHost."},
		"a name below localhost":         {guard: shop, host: "app.localhost:8081"},
		"IPv6 without a port":            {guard: shop, host: "[::1]"},
		"HTTP/1.0 without Host":          {guard: shop, host: ""},
		"a host that is allowed":         {guard: shop, host: "MICRO.test:8081"},
		"a rebound name":                 {guard: shop, host: "evil.example:8081", status: 403},
		"a name that ends like one":      {guard: shop, host: "evillocalhost", status: 403},
		"any host on another listener":   {guard: shop, host: "evil.example", beyond: true},
		"another origin on one":          {guard: shop, host: "evil.example", beyond: true, header: map[string]string{"Origin": "https://evil.example"}, status: 403},
		"an address that is not ours":    {guard: shop, host: "192.0.2.1", status: 403},
		"the same origin":                {guard: shop, host: "localhost:8081", header: map[string]string{"Origin": "http://localhost:8081"}},
		"the same host over TLS":         {guard: shop, host: "localhost:8081", header: map[string]string{"Origin": "https://localhost:8081"}, status: 403},
		"another port":                   {guard: shop, host: "localhost:8081", header: map[string]string{"Origin": "http://localhost:9090"}, status: 403},
		"another origin":                 {guard: shop, host: "localhost", header: map[string]string{"Origin": "https://evil.example"}, status: 403},
		"no origin that can be told":     {guard: shop, host: "localhost", header: map[string]string{"Origin": "null"}, status: 403},
		"an image on another site":       {guard: shop, host: "localhost", header: map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, status: 403},
		"a link on another site":         {guard: shop, host: "localhost", header: map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}},
		"an image on another port":       {guard: shop, host: "localhost", header: map[string]string{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, status: 403},
		"a frame on another site":        {guard: shop, host: "localhost", header: map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, status: 403},
		"an origin in --cors":            {guard: shop, host: "localhost", header: map[string]string{"Origin": "https://shop.example"}, allow: "https://shop.example"},
		"any origin, but a rebound name": {guard: open, host: "evil.example", header: map[string]string{"Origin": "https://a.example"}, status: 403},
		"any origin":                     {guard: open, beyond: true, host: "sidecar.example", header: map[string]string{"Origin": "https://a.example"}, allow: "*"},
		"a preflight": {
			guard: shop, method: http.MethodOptions, host: "localhost", status: 204, allow: "https://shop.example",
			header: map[string]string{"Origin": "https://shop.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-a, x-b"},
		},
		"a preflight of another origin": {
			guard: shop, method: http.MethodOptions, host: "localhost", status: 403,
			header: map[string]string{"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.method == "" {
				test.method = http.MethodGet
			}
			own := httptest.NewRequest(test.method, "/registry", nil)
			own.Host = test.host
			if !test.beyond {
				own = own.WithContext(httpmsg.WithLoopback(own.Context()))
			}
			data := &httpmsg.Request{Method: test.method, Target: "/a/b", Host: test.host, Loopback: !test.beyond}
			for field, value := range test.header {
				own.Header.Set(field, value)
				data.Header.Add(field, value)
			}
			ownStatus, ownHeader := ownVerdict(&test.guard, own)
			dataStatus, dataHeader := dataVerdict(t, &test.guard, data)
			if ownStatus != test.status || dataStatus != test.status {
				t.Errorf("own paths %d, data plane %d, want %d", ownStatus, dataStatus, test.status)
			}
			for _, field := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Allow-Credentials", "Vary"} {
				if field == "Vary" && test.allow == "" && test.status == 0 {
					continue // see admit
				}
				if a, b := ownHeader.Get(field), dataHeader.Get(field); a != b {
					t.Errorf("%s: own paths %q, data plane %q", field, a, b)
				}
			}
			if got := ownHeader.Get("Access-Control-Allow-Origin"); got != test.allow {
				t.Errorf("allowed origin %q, want %q", got, test.allow)
			}
			if got := ownHeader.Get("Access-Control-Allow-Credentials"); (got == "true") != (test.allow != "" && test.allow != "*") {
				t.Errorf("credentials %q for origin %q", got, test.allow)
			}
			if !strings.HasPrefix(ownHeader.Get("Vary"), "Origin") {
				t.Errorf("Vary %q", ownHeader.Get("Vary"))
			}
			if got := ownHeader.Get("Access-Control-Allow-Headers"); test.status == 204 && got != test.header["Access-Control-Request-Headers"] {
				t.Errorf("allowed headers %q", got)
			}
		})
	}
}

// ownVerdict returns what the guard answered, 0 when the request goes on.
func ownVerdict(g *Guard, r *http.Request) (int, http.Header) {
	w := httptest.NewRecorder()
	if g.admitOwn(w, r) {
		return 0, w.Header()
	}
	return w.Code, w.Header()
}

// dataVerdict is ownVerdict for the data plane; the header is that of the
// answer that follows.
func dataVerdict(t *testing.T, g *Guard, r *httpmsg.Request) (int, httpmsg.Header) {
	t.Helper()
	var sent answer
	w, done, err := g.admit(r, &sent)
	switch {
	case err != nil:
		if err := Refuse(r, w, err); err != nil {
			t.Fatal(err)
		}
	case !done:
		if err := w.Head(http.StatusOK, nil, 0); err != nil {
			t.Fatal(err)
		}
		return 0, sent.header
	}
	return sent.status, sent.header
}

func TestSameOriginOverTLS(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/registry", nil)
	r.Host, r.TLS = "localhost:8081", &tls.ConnectionState{}
	r.Header.Set("Origin", "https://localhost:8081")
	if status, _ := ownVerdict(&Guard{}, r.WithContext(httpmsg.WithLoopback(r.Context()))); status != 0 {
		t.Errorf("refused with %d", status)
	}
}
