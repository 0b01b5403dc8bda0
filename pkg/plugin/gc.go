package plugin

import (
	"encoding/json"

	"github.com/containernetworking/cni/pkg/types"
)

// ValidAttachments reads the list that GC is given. null and [] say that no
// attachment is valid. Without the key nobody has said anything, so that is an
// error rather than the end of every container on the network.
func ValidAttachments(conf []byte) ([]types.GCAttachment, error) {
	const key = "cni.dev/valid-attachments"
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(conf, &keys); err != nil {
		return nil, Errorf(types.ErrDecodingFailure, "configuration is no JSON object: %w", err)
	}
	list, given := keys[key]
	if !given {
		return nil, Errorf(types.ErrInvalidNetworkConfig,
			"%s: the key is missing, and GC removes all that it does not list; give [] to remove every attachment", key)
	}
	var valid []types.GCAttachment
	if err := json.Unmarshal(list, &valid); err != nil {
		return nil, Errorf(types.ErrInvalidNetworkConfig, "%s: %w", key, err)
	}
	return valid, nil
}
