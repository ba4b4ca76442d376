package transport

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of grpc.reflection.v1's messages that are used here; those of
// v1alpha have the same numbers. They are written out because the generated
// ones would bring grpc-go's runtime with them.
const (
	askFile     protowire.Number = 3 // ServerReflectionRequest.file_by_filename
	askSymbol   protowire.Number = 4 // .file_containing_symbol
	askServices protowire.Number = 7 // .list_services

	toldFiles    protowire.Number = 4 // ServerReflectionResponse.file_descriptor_response
	toldServices protowire.Number = 6 // .list_services_response
	toldError    protowire.Number = 7 // .error_response
)

// reflectionRequest makes a ServerReflectionRequest.
func reflectionRequest(field protowire.Number, value string) []byte {
	b := protowire.AppendTag(nil, field, protowire.BytesType)
	return protowire.AppendString(b, value)
}

// reflected is a ServerReflectionResponse.
type reflected struct {
	files    [][]byte // serialised FileDescriptorProtos
	services []string
	code     grpcCode // grpcOK when it is no error
	message  string
}

// maxReflected bounds the files and the services in one answer.
const maxReflected = 4096

// parseReflection reads an answer. It keeps parts of b.
func parseReflection(b []byte) (reflected, error) {
	var r reflected
	var known, crowded bool
	whole := true
	each := func(b []byte, f func(number protowire.Number, value []byte, n uint64)) {
		whole = eachField(b, f) && whole
	}
	each(b, func(number protowire.Number, value []byte, _ uint64) {
		switch number {
		case toldFiles:
			known = true
			each(value, func(number protowire.Number, file []byte, _ uint64) {
				if number == 1 && len(r.files) < maxReflected {
					r.files = append(r.files, file)
				} else if number == 1 {
					crowded = true
				}
			})
		case toldServices:
			known = true
			each(value, func(number protowire.Number, service []byte, _ uint64) {
				if number != 1 {
					return
				}
				each(service, func(number protowire.Number, name []byte, _ uint64) {
					if number == 1 && len(r.services) < maxReflected {
						r.services = append(r.services, string(name))
					} else if number == 1 {
						crowded = true
					}
				})
			})
		case toldError:
			known = true
			r.code = 2 // UNKNOWN, in case it names none
			each(value, func(number protowire.Number, text []byte, n uint64) {
				switch number {
				case 1:
					r.code = grpcCode(int32(n))
				case 2:
					r.message = string(text)
				}
			})
		}
	})
	switch {
	case !whole:
		return reflected{}, errors.New("answered reflection with a malformed message")
	case crowded:
		return reflected{}, fmt.Errorf("answered reflection with more than %d names or files", maxReflected)
	case !known:
		return reflected{}, errors.New("answered reflection with what was not asked for")
	}
	return r, nil
}
