package server

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// readAll reads what a client sent through an http2Conn, in reads of the given
// sizes.
func readAllFrames(sent []byte, sizes []byte) ([]byte, error) {
	c := newHTTP2Conn(nowhere{}, sent, nil, nil)
	var out []byte
	for i := 0; ; i++ {
		size := 512
		if len(sizes) > 0 {
			size = int(sizes[i%len(sizes)])*64 + 1
		}
		p := make([]byte, size)
		n, err := c.Read(p)
		if out = append(out, p[:n]...); err != nil {
			return out, err
		}
	}
}

// nowhere is a connection on which nothing more comes.
type nowhere struct{ net.Conn }

func (nowhere) Read([]byte) (int, error) { return 0, io.EOF }

// What a client sends arrives as it was sent, however it is read, but for
// blocks of fields that are malformed: those get one more field.
func FuzzHTTP2Conn(f *testing.F) {
	var good, bad bytes.Buffer
	for buf, te := range map[*bytes.Buffer]string{&good: "trailers", &bad: "gzip"} {
		buf.WriteString(preface)
		framer := http2.NewFramer(buf, nil)
		_ = framer.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 15})
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for _, field := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":path", Value: "/"}, {Name: "te", Value: te}} {
			_ = encoder.WriteField(field)
		}
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes()[:2], PadLength: 3})
		_ = framer.WriteContinuation(1, true, block.Bytes()[2:])
		_ = framer.WriteData(1, true, make([]byte, 5000))
		_ = framer.WritePing(false, [8]byte{})
	}
	f.Add(good.Bytes(), []byte{0, 3, 200})
	f.Add(bad.Bytes(), []byte{1})
	f.Add([]byte(preface+"\x00\x00\x01\x01\x0c\x00\x00\x00\x01\x09"), []byte{})
	f.Add([]byte("PRI * HTTP/1.1\r\n\r\n"), []byte{0})
	f.Fuzz(func(t *testing.T, sent, sizes []byte) {
		out, err := readAllFrames(sent, sizes)
		again, errAgain := readAllFrames(sent, nil)
		if !bytes.Equal(out, again) || !errors.Is(errAgain, err) {
			t.Fatalf("in other pieces:\n%q %v\n%q %v", out, err, again, errAgain)
		}
		if !bytes.HasPrefix(sent, []byte(preface)) {
			if len(out) > 0 {
				t.Fatalf("%q passed for HTTP/2", out)
			}
			return
		}
		if !bytes.Contains(out, []byte("\x00\x01A\x00")) && !bytes.HasPrefix(sent, out) {
			t.Fatalf("sent\n%q, arrived\n%q", sent, out)
		}
	})
}

// What looking at a request costs on its way to net/http.
func BenchmarkHTTP2Conn(b *testing.B) {
	var sent, block bytes.Buffer
	framer := http2.NewFramer(&sent, nil)
	encoder := hpack.NewEncoder(&block)
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/greeter/hello?name=John"},
		{Name: ":authority", Value: "127.0.0.1:8081"}, {Name: "user-agent", Value: "curl/7.88.1"}, {Name: "accept", Value: "*/*"},
	}
	stream := uint32(1)
	next := func() {
		block.Reset()
		for _, f := range fields {
			_ = encoder.WriteField(f)
		}
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
		stream += 2
	}
	sent.WriteString(preface)
	next()
	first := sent.Len()
	next() // what comes again and again: from the table
	request := bytes.Clone(sent.Bytes()[first:])
	c := newHTTP2Conn(nowhere{}, sent.Bytes()[:first], nil, nil)
	p := make([]byte, 512)
	for range first {
		if _, err := c.Read(p[:1]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		c.src = bytes.NewReader(request)
		for read := 0; read < len(request); {
			n, err := c.Read(p)
			if err != nil {
				b.Fatal(err)
			}
			read += n
		}
	}
}
