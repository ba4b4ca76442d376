package redis

import (
	"embed"

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

// newScripts reads what was built in. Those that give out and settle messages
// run when the server's memory is full, too: they are what empties it.
func newScripts() (*scripts, error) {
	s := &scripts{}
	const always = "#!lua flags=allow-oom\n"
	for _, one := range []struct {
		set   **goredis.Script
		name  string
		flags string
	}{
		{&s.publish, "publish", ""}, {&s.enter, "enter", ""}, {&s.leave, "leave", always}, {&s.declare, "declare", ""},
		{&s.take, "take", always}, {&s.ack, "ack", always}, {&s.giveback, "giveback", always},
		{&s.extend, "extend", always}, {&s.part, "part", always}, {&s.info, "info", always}, {&s.purge, "purge", always},
		{&s.deleteQueue, "delete", always}, {&s.remove, "remove", always}, {&s.browse, "browse", always},
	} {
		prelude, err := sources.ReadFile("scripts/prelude.lua")
		if err != nil {
			return nil, err
		}
		source, err := sources.ReadFile("scripts/" + one.name + ".lua")
		if err != nil {
			return nil, err
		}
		*one.set = goredis.NewScript(one.flags + string(prelude) + "\n" + string(source))
	}
	return s, nil
}
