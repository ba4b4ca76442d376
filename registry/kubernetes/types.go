package kubernetes

// What is read of the API's objects, of many fields few: discovery.k8s.io/v1
// and v1. Unknown fields are passed over, as the API's rules ask.

type objectMeta struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	ResourceVersion string            `json:"resourceVersion"`
	Labels          map[string]string `json:"labels"`
	Annotations     map[string]string `json:"annotations"`
}

func (m *objectMeta) meta() *objectMeta { return m }

// key is what an object is known by within its kind.
func (m *objectMeta) key() string { return m.Namespace + "/" + m.Name }

type service struct {
	objectMeta `json:"metadata"`
	Spec       struct {
		Type string `json:"type"`
	} `json:"spec"`
}

type endpointSlice struct {
	objectMeta  `json:"metadata"`
	AddressType string     `json:"addressType"`
	Endpoints   []endpoint `json:"endpoints"`
	Ports       []port     `json:"ports"`
}

type endpoint struct {
	Addresses  []string `json:"addresses"`
	Conditions struct {
		Ready *bool `json:"ready"`
	} `json:"conditions"`
	TargetRef *struct {
		Name string `json:"name"`
	} `json:"targetRef"`
	Zone string `json:"zone"`
}

type port struct {
	Name        string `json:"name"`
	Port        int    `json:"port"`
	Protocol    string `json:"protocol"`
	AppProtocol string `json:"appProtocol"`
}

// list is a page of objects.
type list[T any] struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
		Continue        string `json:"continue"`
	} `json:"metadata"`
	Items []T `json:"items"`
}

// status is what the API answers when it cannot do as it was asked.
type status struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}
