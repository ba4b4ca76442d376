package transport

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"testing"
)

func FuzzJSONRPCResult(f *testing.F) {
	for _, s := range []string{
		`{"id":0,"result":{"a":1},"error":null}`, `{"id":"0","result":{},"error":"text"}`, `{"error":{"code":404,"detail":"x"}}`,
		`{"error":"{\"id\":\"x\",\"code\":404}"}`, `{}`, `[]`, ``, `{"result":`, `{"error":[]}`, `{"RESULT":1,"result":2}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		result, err := jsonrpcResult(body)
		if err == nil && !json.Valid(result) {
			t.Errorf("%q gave %q, which is no JSON", body, result)
		}
		checkServiceError(t, err)
		if e := bodyError(body); e != nil {
			checkServiceError(t, e)
		}
	})
}

// What is read by hand is read as package json reads it.
func FuzzOpenEnvelope(f *testing.F) {
	for _, s := range []string{
		`{"id":0,"result":{"a":[1,"}\\""," "]},"error":null}`, ` { "error" : "x" , "result" : -1e5 } `, `{"result":{},"result":[[]]}`, `{}`, `{"re\u0073ult":1}`,
		`{"Result":1}`, `[1]`, `"x"`, `{"result":1,"other":2}`, "{\"result\":\t1\n}", `{"id":"a\"b","error":{"detail":"x y"}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if got, err := compact(body); err == nil {
			var want bytes.Buffer
			if err := json.Compact(&want, body); err != nil || want.String() != string(got) {
				t.Errorf("compact: got %q, want %q, %v", got, want.String(), err)
			}
		} else if json.Valid(body) {
			t.Errorf("compact: %v", err)
		}
		got, ok := openEnvelope(body)
		if !ok {
			return
		}
		var want envelope
		if err := json.Unmarshal(body, &want); err != nil || string(want.Result) != string(got.Result) || string(want.Error) != string(got.Error) {
			t.Errorf("got %q, %q, want %q, %q, %v", got.Result, got.Error, want.Result, want.Error, err)
		}
	})
}

func FuzzProtorpcResult(f *testing.F) {
	f.Add(protorpcRequest("Say.Hello", []byte("body")))
	f.Add(appendFrame(appendFrame(nil, []byte("\x1a\x04oops")), nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0})
	f.Add([]byte{0, 0, 0, 1})
	f.Add(binary.BigEndian.AppendUint32(nil, 0))
	f.Fuzz(func(t *testing.T, answer []byte) {
		body, err := protorpcResult(answer)
		if err == nil && len(body) > len(answer)-8 {
			t.Errorf("%d bytes out of %d", len(body), len(answer))
		}
		checkServiceError(t, err)
	})
}

func FuzzParseServiceError(f *testing.F) {
	for _, s := range []string{`{"id":"x","code":404,"detail":"d","status":"s"}`, `{"code":"404"}`, `{"code":-1,"message":"m"}`, "text", "", "{", "\xff", `{"code":1e3}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) { checkServiceError(t, ParseServiceError(text)) })
}

// checkServiceError holds what every service error must be: writable as an answer.
func checkServiceError(t *testing.T, err error) {
	t.Helper()
	var e *ServiceError
	if errors.As(err, &e) && !e.valid() {
		t.Errorf("code %d of %+v is no status of an error", e.Code, e)
	}
}

func BenchmarkCall(b *testing.B) {
	for name, answer := range map[string]string{"bare": `{"id":0,"result":{"text":"Hello John"},"error":null}`, "raw": `{"text":"Hello John"}`} {
		b.Run(name, func(b *testing.B) {
			var metadata map[string]string
			if name == "raw" {
				metadata = mucp
			}
			out := ok(JSON, answer)
			w := startWire(b, func(string, string) (string, bool) { return out, true })
			c, n := newClient(b, Options{}), node(b, w.addr, metadata)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Call(b.Context(), n, sayHello); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
