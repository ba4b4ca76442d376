package consul

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/micro/sidecar/registry"
)

// The vectors were written by go-micro.
const (
	protocolTag = "t-789caa562a28ca2fc94fcecf51b252ca2d4d2e50aa05040000ffff46a906e2"
	version100  = "v-789c32d433d03300040000ffff02ce00ee"
	versionNone = "v-789c010000ffff00000001"
	latest      = "v-789cca492c492d2e01040000ffff08cc028e"
)

func TestEncodeTagsAsGoMicro(t *testing.T) {
	n := registry.Node{Metadata: map[string]string{"protocol": "mucp"}}
	for version, want := range map[string][]string{
		"1.0.0": {protocolTag, version100}, "": {protocolTag, versionNone}, "latest": {protocolTag, latest},
	} {
		have, err := encodeTags(registry.Service{Version: version}, n)
		if err != nil || !slices.Equal(have, want) {
			t.Errorf("version %q: have %q, %v\nwant %q", version, have, err, want)
		}
	}
}

func TestDecodeTags(t *testing.T) {
	mucp := map[string]string{"protocol": "mucp"}
	endpoint := []registry.Endpoint{{Name: "Say.Hello", Request: &registry.Value{Name: "Request", Type: "Request"}}}
	const plainEndpoint = `e={"name":"Say.Hello","request":{"name":"Request","type":"Request","values":null},"response":null,"metadata":null}`
	packedEndpoint, err := pack("e", []byte(plainEndpoint[2:]))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		tags []string
		want content
	}{
		"none":            {nil, content{}},
		"packed":          {[]string{protocolTag, version100, packedEndpoint}, content{version: "1.0.0", node: mucp, endpoints: endpoint, ours: true}},
		"empty version":   {[]string{versionNone}, content{ours: true}},
		"plain":           {[]string{`t={"protocol":"mucp"}`, "v=1.0.0", plainEndpoint}, content{version: "1.0.0", node: mucp, endpoints: endpoint, ours: true}},
		"both forms":      {[]string{`t={"protocol":"old"}`, "v=old", plainEndpoint, protocolTag, version100, packedEndpoint}, content{version: "1.0.0", node: mucp, endpoints: endpoint, ours: true}},
		"foreign":         {[]string{"t", "e", "v", "s", "", "traefik.enable=true", "edge", "v2", "t-", "e-", "v-", "t-zz", "e-00", "t=x", "e=x", "e=null", "t=null", "secure"}, content{}},
		"foreign first":   {[]string{"t", "traefik.enable=true", "t-zz", "t=x", "e", protocolTag, "v", version100}, content{version: "1.0.0", node: mucp, ours: true}},
		"truncated":       {[]string{protocolTag[:len(protocolTag)-6], version100}, content{version: "1.0.0", ours: true}},
		"values of null":  {[]string{`e={"name":"Say.Hello","request":{"name":"Request","type":"Request","values":[null,null]}}`}, content{endpoints: endpoint, ours: true}},
		"upper-case hex":  {[]string{"t-" + strings.ToUpper(protocolTag[2:])}, content{node: mucp, ours: true}},
		"not JSON inside": {[]string{"t" + version100[1:], version100}, content{version: "1.0.0", ours: true}},
	} {
		if have := decodeTags(test.tags); !reflect.DeepEqual(have, test.want) {
			t.Errorf("%s: have %+v\nwant %+v", name, have, test.want)
		}
	}
}

func TestDecodeTagsBombs(t *testing.T) {
	bomb := func(kind string, size int) string {
		var packed bytes.Buffer
		w := zlib.NewWriter(&packed)
		if _, err := w.Write(bytes.Repeat([]byte("0"), size)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return kind + "-" + hex.EncodeToString(packed.Bytes())
	}
	if have := decodeTags([]string{bomb("v", 8<<20), version100}); have.version != "1.0.0" {
		t.Errorf("a tag of 8 MiB hides the next: version of %d bytes", len(have.version))
	}
	many := slices.Repeat([]string{bomb("v", maxTag)}, 200)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	decodeTags(many)
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 64<<20 {
		t.Errorf("two hundred large tags took %d bytes", allocated)
	}
	deep := "e=" + strings.Repeat(`{"values":[`, 5000) + strings.Repeat("]}", 5000)
	decodeTags([]string{"e={\"request\":" + deep[2:] + "}"})
}

func FuzzDecodeTags(f *testing.F) {
	for _, seed := range []string{protocolTag, version100, versionNone, latest, "t", "e", "v", "t=", `t={"a":"b"}`, `e={"name":"x","request":{"values":[null]}}`, "traefik.enable=true", "s-", "v=1\nt-zz"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first := decodeTags(strings.Split(text, "\n"))
		again, err := encodeTags(registry.Service{Version: first.version, Metadata: first.service, Endpoints: first.endpoints}, registry.Node{Metadata: first.node})
		if err != nil {
			return // too long to be written
		}
		second := decodeTags(again)
		first.ours = true
		tags, err := encodeTags(registry.Service{Version: second.version, Metadata: second.service, Endpoints: second.endpoints}, registry.Node{Metadata: second.node})
		if err != nil || !slices.Equal(tags, again) {
			t.Fatalf("%q became %q, %v", again, tags, err)
		}
	})
}

func TestNames(t *testing.T) {
	for _, plain := range []string{"go.micro.srv.greeter", "topic:events", "a b", "a/b", "ünï", "trail/", "*", "UPPER", "a@b", "consul-x", "?q#"} {
		if have := encodeName(plain); have != plain {
			t.Errorf("%q, which Consul holds, became %q", plain, have)
		}
	}
	for _, odd := range []string{"consul", "Consul", "/a", "a//b", ".", "..", "a/../b", "tab\t", "nul\x00", "\u200b", "%2F", "micro--", "micro--6162", "a\xff"} {
		encoded := encodeName(odd)
		if encoded == odd || !addressable(strings.TrimPrefix(encoded, encodedPrefix)) {
			t.Errorf("%q became %q", odd, encoded)
		}
		if have := decodeName(encoded); have != odd {
			t.Errorf("%q came back as %q", odd, have)
		}
		if have := decodeID("svc", encodeID("svc", odd)); have != odd {
			t.Errorf("id %q came back as %q", odd, have)
		}
	}
	for _, foreign := range []string{"micro--", "micro--xyz", "micro--4A", "micro--6162"} { // 6162 is "ab", which needs no encoding
		if have := decodeName(foreign); have != foreign {
			t.Errorf("a foreign service %q is read as %q", foreign, have)
		}
	}
	if have := decodeID("other", encodeID("svc", "n")); have == "n" {
		t.Error("the id of one service was read as that of another")
	}
}

func TestEncodeMeta(t *testing.T) {
	have := encodeMeta(map[string]string{"ok": "1", "a.b": "2", "a:b": "3", "consul-x": "4", strings.Repeat("k", 129): "5", "long": strings.Repeat("v", 513), "": "6"}, 90e9)
	if want := map[string]string{"ok": "1", ttlKey: "1m30s"}; !reflect.DeepEqual(have, want) {
		t.Errorf("have %v, want %v", have, want)
	}
}
