// go-micro of April 2018. It had no module yet, and modules that it needs ask for
// a later one: the replacement at the end is what counts.
module github.com/micro/sidecar/e2e/testdata/gomicro2018

go 1.26.7

require (
	github.com/armon/go-metrics v0.0.0-20180917152333-f0300d1749da
	github.com/golang/protobuf v1.2.0
	github.com/hashicorp/consul v1.4.2
	github.com/hashicorp/serf v0.8.2
	github.com/micro/cli v0.1.0
	github.com/micro/go-log v0.1.0
	github.com/micro/go-micro v0.26.1
	github.com/micro/go-plugins v0.9.0
	github.com/micro/go-rcache v0.2.1
	github.com/micro/mdns v0.1.0
	github.com/micro/util v0.2.0
	github.com/pborman/uuid v1.2.1
	golang.org/x/net v0.0.0-20190213061140-3a22650c66bd
	golang.org/x/sys v0.0.0-20190222171317-cd391775e71e
)

require (
	github.com/go-log/log v0.1.0 // indirect
	github.com/google/uuid v1.0.0 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-immutable-radix v1.0.0 // indirect
	github.com/hashicorp/go-rootcerts v1.1.0 // indirect
	github.com/hashicorp/golang-lru v0.5.0 // indirect
	github.com/miekg/dns v1.1.4 // indirect
	github.com/mitchellh/hashstructure v1.1.0 // indirect
	github.com/mitchellh/mapstructure v0.0.0-20160808181253-ca63d7c062ee // indirect
	github.com/nats-io/go-nats v1.6.0 // indirect
	github.com/nats-io/nats v1.2.0 // indirect
	github.com/nats-io/nuid v1.0.0 // indirect
	github.com/nu7hatch/gouuid v0.0.0-20131221200532-179d4d0c4d8d // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/streadway/amqp v0.0.0-20190827072141-edfb9018d271 // indirect
	golang.org/x/crypto v0.0.0-20190211182817-74369b46fc67 // indirect
)

replace github.com/micro/go-micro => github.com/micro/go-micro v0.8.0

replace github.com/nats-io/nats => github.com/nats-io/go-nats v1.5.0
