// A module that go-micro v1.18 lists and nothing imports.
module github.com/micro/protoc-gen-micro
