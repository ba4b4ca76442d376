package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// The forms of /stats.
const (
	pageType   = "text/html"
	jsonType   = "application/json"
	eventsType = "text/event-stream"
)

// stats answers the page, and for those who ask for it the same as JSON, once
// or as server-sent events whenever there is something new.
func (a *API) stats(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	w.Header().Add("Vary", "Accept, Content-Type")
	switch statsForm(r.Header) {
	case jsonType:
		query := r.URL.Query()
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, r, a.Monitor.Overview(query.Get("service"), query.Get("filter")))
	case eventsType:
		a.statsEvents(w, r)
	default:
		a.Page.ServeHTTP(w, r)
	}
}

// statsForm chooses the form of /stats. Content-Type counts as in 2017, though
// a GET has no content.
func statsForm(h http.Header) string {
	if media, _, _ := strings.Cut(h.Get("Content-Type"), ";"); strings.EqualFold(strings.TrimSpace(media), jsonType) {
		return jsonType
	}
	best, weight := pageType, 0.0
	for _, field := range h.Values("Accept") {
		for item := range strings.SplitSeq(field, ",") {
			media, parameters, _ := strings.Cut(item, ";")
			media = strings.ToLower(strings.TrimSpace(media))
			if q := quality(parameters); q > weight && (media == pageType || media == jsonType || media == eventsType) {
				best, weight = media, q
			}
		}
	}
	return best
}

// quality is the weight among the parameters of a media type (RFC 9110 section
// 12.4.2).
func quality(parameters string) float64 {
	for p := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(p, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || q < 0 {
			return 0
		}
		return min(q, 1)
	}
	return 1
}

// maxViewers bounds the streams of /stats under way.
const maxViewers = 100

// statsEvents streams the overview (HTML standard, section 9.2).
func (a *API) statsEvents(w http.ResponseWriter, r *http.Request) {
	defer a.viewers.Add(-1)
	if a.viewers.Add(1) > maxViewers {
		Fail(w, r, httpmsg.Errorf(http.StatusTooManyRequests, "%d streams of /stats are under way, which is the most", maxViewers))
		return
	}
	ctx, done, err := a.watches.Begin(r.Context())
	if err != nil {
		Fail(w, r, err)
		return
	}
	defer done()
	query := r.URL.Query()
	selected, filter := query.Get("service"), query.Get("filter")
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", eventsType)
	w.Header().Set("Cache-Control", "no-store")
	for {
		next := a.Monitor.Looked()
		var event bytes.Buffer
		event.WriteString("data: ")
		// It ends the line, and strings have none that is not escaped.
		if err := json.NewEncoder(&event).Encode(a.Monitor.Overview(selected, filter)); err != nil {
			return // it cannot fail
		}
		event.WriteByte('\n')
		_ = control.SetWriteDeadline(time.Now().Add(writeTimeout)) // where it is supported
		if _, err := w.Write(event.Bytes()); err != nil {
			return
		}
		if control.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}
