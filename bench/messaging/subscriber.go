package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
)

// subscriber is a WebSocket client as lean as a load generator's: what it
// measures shares the processors with it. Its mask is zero, so that nothing
// has to be masked.
type subscriber struct {
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
	text []byte // of the last frame
}

func (m *measurement) subscribe(query string) (*subscriber, error) {
	conn, err := net.Dial("tcp", m.sidecar.Address)
	if err != nil {
		return nil, err
	}
	s := &subscriber{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), out: bufio.NewWriterSize(conn, 64<<10)}
	if err := s.handshake(m.sidecar.Address, query); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *subscriber) handshake(host, query string) error {
	const key = "dGhlIHNhbXBsZSBub25jZQ==" // of RFC 6455 section 1.3
	fmt.Fprintf(s.out, "GET /broker?%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", query, host, key)
	if err := s.out.Flush(); err != nil {
		return err
	}
	resp, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(resp.Body) // the status says enough
		return fmt.Errorf("subscribe: %s %s", resp.Status, text)
	}
	return nil
}

// next reads the next text frame, which is valid until the next call.
func (s *subscriber) next() ([]byte, error) {
	for {
		head, err := s.in.Peek(2)
		if err != nil {
			return nil, err
		}
		opcode, size, skip := head[0]&0xf, uint64(head[1]), 2
		switch size {
		case 126:
			skip = 4
		case 127:
			skip = 10
		}
		if head, err = s.in.Peek(skip); err != nil {
			return nil, err
		}
		switch size {
		case 126:
			size = uint64(binary.BigEndian.Uint16(head[2:]))
		case 127:
			size = binary.BigEndian.Uint64(head[2:])
		}
		if _, err := s.in.Discard(skip); err != nil {
			return nil, err
		}
		if uint64(cap(s.text)) < size {
			s.text = make([]byte, size)
		}
		s.text = s.text[:size]
		if _, err := io.ReadFull(s.in, s.text); err != nil {
			return nil, err
		}
		switch opcode {
		case 1:
			return s.text, nil
		case 8:
			return nil, fmt.Errorf("the sidecar closed the connection: %q", s.text)
		}
	}
}

// send writes a text frame of at most 125 bytes; it goes out once nothing that
// has arrived is left to be read.
func (s *subscriber) send(text []byte) error {
	_, err := s.out.Write([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0})
	if err == nil {
		_, err = s.out.Write(text)
	}
	if err == nil && s.in.Buffered() == 0 {
		err = s.out.Flush()
	}
	return err
}
