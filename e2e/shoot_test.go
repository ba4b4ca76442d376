//go:build unix

package e2e

import (
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

func TestShoot(t *testing.T) {
	url := os.Getenv("SHOOT")
	if url == "" {
		t.Skip()
	}
	v := newViewer(t)
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
		v.prefers(scheme)
		v.do(chromedp.EmulateViewport(s.w, s.h, chromedp.EmulateScale(s.scale)), chromedp.Navigate(url),
			chromedp.WaitVisible(`body[data-link="live"]`), chromedp.Sleep(700*time.Millisecond))
		shot := chromedp.FullScreenshot(100)
		if s.name == "none" {
			shot = chromedp.Screenshot("#services")
		}
		png, err := chromedp.Run(v.tab, shot)
		if err != nil {
			t.Fatal(err)
		}
		_ = os.WriteFile("/tmp/dash/"+s.name+".png", png, 0o644)
	}
}
