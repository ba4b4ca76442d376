package sidecar

import (
	"cmp"
	"context"
	"strings"

	"github.com/micro/sidecar/internal/accesslog"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/server"
)

// openAccessLog opens the log of --access_log and returns what observes answers
// for it, nil when there is none.
func (s *sidecar) openAccessLog() (observe func(*server.Answered), err error) {
	if s.cfg.Observe.AccessLog.Path == "" {
		return nil, nil
	}
	log, err := accesslog.Open(s.cfg.Observe.AccessLog, func(err error) {
		s.log.Error("the access log cannot be written; trying on", "error", err)
	})
	if err != nil {
		return nil, err
	}
	s.accessLog = log
	return func(a *server.Answered) {
		if log.Wants(a.Status, a.Took) {
			log.Add(entry(a))
		}
	}, nil
}

// entry is a line of the access log.
func entry(a *server.Answered) *accesslog.Entry {
	path, _, _ := strings.Cut(a.Target, "?")
	return &accesslog.Entry{
		Begun: a.Begun, Took: a.Took, Remote: a.RemoteAddr, Method: a.Method, Host: a.Host, Path: path, Proto: a.Proto,
		Status: a.Status, Sent: a.Sent, Service: a.Service, Node: a.Node,
		// What went to no node has none yet: here it names the line.
		RequestID: cmp.Or(a.RequestID, a.Header("X-Request-Id"), httpmsg.NewRequestID()),
		TraceID:   traceID(a.Header("traceparent")), UserAgent: a.Header("User-Agent"),
	}
}

// traceID is the trace in a traceparent field (W3C Trace Context, section
// 3.2.2), "" when there is none.
func traceID(parent string) string {
	const version, trace = 2, 32
	if len(parent) < version+1+trace+1 || parent[version] != '-' || parent[version+1+trace] != '-' {
		return ""
	}
	id := parent[version+1 : version+1+trace]
	if strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}

// closeAccessLog writes what waits.
func (s *sidecar) closeAccessLog(context.Context) error {
	if s.accessLog != nil {
		s.accessLog.Close()
	}
	return nil
}
