//go:build unix

package e2e

import (
	"os"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/micro/sidecar/internal/testserver"
)

func TestShoot(t *testing.T) {
	url := os.Getenv("SHOOT")
	if url == "" {
		t.Skip()
	}
	tab := testserver.Chromium(t)
	for _, s := range []struct {
		name  string
		w, h  int64
		dark  bool
		scale float64
	}{{"light", 1440, 1000, false, 1}, {"dark", 1440, 1000, true, 1}, {"narrow", 360, 800, false, 2}, {"wide", 2560, 1300, true, 1}} {
		scheme := "light"
		if s.dark {
			scheme = "dark"
		}
		if _, err := chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
			t.Fatal(err)
		}
		err := chromedp.Do(tab,
			chromedp.EmulateViewport(s.w, s.h, chromedp.EmulateScale(s.scale)),
			chromedp.Navigate(url),
			chromedp.WaitVisible(`body[data-link="live"]`),
			chromedp.Sleep(700*time.Millisecond),
		)
		if err != nil {
			t.Fatal(err)
		}
		png, err := chromedp.Run(tab, chromedp.FullScreenshot(100))
		if err != nil {
			t.Fatal(err)
		}
		_ = os.WriteFile("/tmp/dash/"+s.name+".png", png, 0o644)
	}
}
