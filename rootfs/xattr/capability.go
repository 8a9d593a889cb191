package xattr

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Revisions and sizes of file capabilities (<linux/capability.h>).
const (
	capRevision2 = 0x02000000
	capRevision3 = 0x03000000
	capEffective = 0x00000001
	capSize2     = 20
	capSize3     = 24
)

// canonicalCapability returns file capabilities as the kernel shows them to root: those of revision
// 3 that belong to user 0 have revision 2. Those of another root user stay as they are, since
// without that user they would be in force in the host's own user namespace.
func canonicalCapability(value []byte) ([]byte, error) {
	if len(value) < 4 {
		return nil, errors.New("the value is no file capability")
	}
	magic := binary.LittleEndian.Uint32(value)
	switch revision := magic &^ capEffective; {
	case revision == capRevision2 && len(value) == capSize2:
		return value, nil
	case revision != capRevision3 || len(value) != capSize3:
		return nil, fmt.Errorf("the value is no file capability of revision 2 or 3 (%d bytes, first word %#x)", len(value), magic)
	case binary.LittleEndian.Uint32(value[capSize2:]) != 0:
		return value, nil
	}
	shown := binary.LittleEndian.AppendUint32(nil, capRevision2|magic&capEffective)
	return append(shown, value[4:capSize2]...), nil
}
