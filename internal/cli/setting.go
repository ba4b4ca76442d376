package cli

// setting is one thing that can be set: by the flag --name, by the environment
// variables MICRO_NAME and env, or by the key name of the configuration file.
type setting struct {
	name    string
	aliases []string // older spellings of the flag
	env     []string // older environment variables
	group   string   // the heading in the help
	value   string   // what the help calls the value; "" for a switch
	def     string   // the default, "" for none
	note    string   // what the help says instead of def
	help    string
	choices []string // what the shell may complete

	// list settings hold several items, at commas or, with noComma, one a flag.
	list    bool
	noComma bool
	// only is a setting of one command: it does not stand in the file.
	only bool
	// noEnv is an only setting whose variable is already that of another one.
	noEnv bool
	// set parses the items (one for a setting that is no list) into c.
	set func(c *Config, items []string) error
}

// isSwitch reports whether the flag stands without a value.
func (s *setting) isSwitch() bool { return s.value == "" }

// items splits a text as the setting has it.
func (s *setting) items(text string) []string {
	if s.list && !s.noComma {
		return splitList(text)
	}
	return []string{text}
}

// variables are the environment variables that set it; the first one counts
// most.
func (s *setting) variables() []string {
	if s.noEnv {
		return nil
	}
	return append([]string{envName(s.name)}, s.env...)
}

// one makes a set function of a parser and the place for its value.
func one[T any](parse func(string) (T, error), at func(*Config) *T) func(*Config, []string) error {
	return func(c *Config, items []string) error {
		for _, item := range items {
			v, err := parse(item)
			if err != nil {
				return err
			}
			*at(c) = v
		}
		return nil
	}
}

// many is one for lists.
func many[T any](parse func([]string) (T, error), at func(*Config) *T) func(*Config, []string) error {
	return func(c *Config, items []string) error {
		v, err := parse(items)
		if err != nil {
			return err
		}
		*at(c) = v
		return nil
	}
}

// meaningless are go-micro's flags that say nothing here.
var meaningless = []string{"client", "server", "client_pool_ttl", "transport", "transport_address"}
