package redis

import (
	"embed"
	"fmt"

	goredis "github.com/redis/go-redis/v9"
)

// The scripts are what happens at once, on the server. prelude.lua stands in
// front of each; what they take and return is said in their first lines.
//
//go:embed scripts/*.lua
var sources embed.FS

// scripts are the programs of the server, by name.
type scripts struct {
	publish, enter, leave                      *goredis.Script
	declare, take, ack, giveback, extend, part *goredis.Script
	info, purge, deleteQueue, remove, browse   *goredis.Script
}

// newScripts reads what was built in.
func newScripts() (*scripts, error) {
	s := &scripts{}
	for name, script := range map[string]**goredis.Script{
		"publish": &s.publish, "enter": &s.enter, "leave": &s.leave,
		"declare": &s.declare, "take": &s.take, "ack": &s.ack, "giveback": &s.giveback, "extend": &s.extend, "part": &s.part,
		"info": &s.info, "purge": &s.purge, "delete": &s.deleteQueue, "remove": &s.remove, "browse": &s.browse,
	} {
		prelude, err := sources.ReadFile("scripts/prelude.lua")
		if err != nil {
			return nil, err
		}
		source, err := sources.ReadFile("scripts/" + name + ".lua")
		if err != nil {
			return nil, err
		}
		*script = goredis.NewScript(fmt.Sprintf("%s\n%s", prelude, source))
	}
	return s, nil
}
