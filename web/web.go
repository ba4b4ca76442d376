// Package web is the statistics page: its source, and the built output that
// goes into the program. It needs nothing but what it is made of, and knows of
// the sidecar only the path that it was loaded from.
package web

import (
	"crypto/sha256"
	_ "embed" // the built files
	"encoding/base64"
	"net/http"
	"strings"
)

var (
	//go:embed dist/page.html
	html string
	//go:embed dist/page.css
	css string
	//go:embed dist/page.js
	js string
)

// Page returns the handler of the page. One document holds everything, and the
// browser is told to take nothing from anywhere else, not even another script
// or style in it (Content Security Policy Level 3).
func Page() http.Handler {
	body := strings.NewReplacer("/*css*/", css, "/*js*/", js).Replace(html)
	policy := "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'; img-src data:" +
		"; style-src '" + hash(css) + "'; script-src '" + hash(js) + "'"
	tag := `"` + hash(body)[len("sha256-"):] + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(body)) // a client that is gone needs no page
	})
}

// hash is what a policy calls an inline script or style.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
