package plugin

import (
	"encoding/json"

	"github.com/containernetworking/cni/pkg/types"
)

// ValidAttachments returns the list of valid attachments in the configuration of GC. If the list is
// null or [], no attachment is valid. If the key is absent, ValidAttachments returns an error.
// Without this error, GC of a runtime that does not set the key would remove every container from
// the network.
func ValidAttachments(conf []byte) ([]types.GCAttachment, error) {
	const key = "cni.dev/valid-attachments"
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(conf, &keys); err != nil {
		return nil, Errorf(types.ErrDecodingFailure, "configuration is no JSON object: %w", err)
	}
	list, given := keys[key]
	if !given {
		return nil, Errorf(types.ErrInvalidNetworkConfig,
			"%s: the key is missing, but GC needs the list of valid attachments; set the list, or [] to remove all attachments", key)
	}
	var valid []types.GCAttachment
	if err := json.Unmarshal(list, &valid); err != nil {
		return nil, Errorf(types.ErrInvalidNetworkConfig, "%s: %w", key, err)
	}
	return valid, nil
}
