package fsinfo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The log of an XFS is a ring of 512-byte blocks with records in it, see "XFS
// Algorithms & Data Structures", chapters "Superblocks" and "Journaling Log".
const (
	xfsLogBlock     = 512
	xfsLogMagic     = 0xFEEDBABE
	xfsHeaderCovers = 32 << 10 // bytes of a record that one header block covers
	xfsLogClient    = 0xAA     // XFS_LOG
	xfsUnmountTrans = 0x20     // XLOG_UNMOUNT_TRANS
	xfsNeedsRepair  = 0x10     // XFS_SB_FEAT_INCOMPAT_NEEDSREPAIR
)

// xfsLog is where the log lies, in bytes.
type xfsLog struct {
	start, blocks int64
	needsRepair   bool
}

// xfsRecord is the header of a log record.
type xfsRecord struct {
	block   int64 // of the log
	lsn     uint64
	size    uint32
	version uint32
	ops     uint32
}

// cleanXFS looks for the newest record of the log: it is clean when that one is
// the record which an unmount, or a remount read-only, writes last.
func cleanXFS(r io.ReaderAt) (string, error) {
	log, err := findXFSLog(r)
	if err != nil {
		return "", err
	}
	if log.needsRepair {
		return "", fmt.Errorf("%w: the XFS superblock has the feature needsrepair; to do: run xfs_repair on it", ErrDamaged)
	}
	record, err := newestRecord(r, log)
	if err != nil {
		return "", err
	}
	unmounted, err := isUnmountRecord(r, log, record)
	if err != nil {
		return "", err
	}
	position := fmt.Sprintf("cycle %d, block %d", record.lsn>>32, record.lsn&(1<<32-1))
	if !unmounted {
		return "", fmt.Errorf("%w: the newest record of the XFS log (%s) is not an unmount record", ErrDirty, position)
	}
	return fmt.Sprintf("the XFS log ends in an unmount record (%s)", position), nil
}

func findXFSLog(r io.ReaderAt) (xfsLog, error) {
	sb := make([]byte, 512)
	if _, err := r.ReadAt(sb, 0); err != nil {
		return xfsLog{}, fmt.Errorf("reading the superblock of the XFS: %w", err)
	}
	be := binary.BigEndian
	blockSize, start := int64(be.Uint32(sb[4:])), be.Uint64(sb[48:])
	agBlocks, logBlocks, agLog := int64(be.Uint32(sb[84:])), int64(be.Uint32(sb[96:])), sb[124]
	switch {
	case string(sb[:4]) != xfsMagic:
		return xfsLog{}, errors.New("reading the superblock of the XFS: wrong magic number")
	case start == 0:
		return xfsLog{}, errors.New("reading the log of the XFS: it is on another device, which is not supported")
	case blockSize < 512 || blockSize > 64<<10 || agLog > 31 || logBlocks == 0 || start>>agLog > 1<<31:
		return xfsLog{}, errors.New("reading the superblock of the XFS: impossible geometry")
	}
	group, within := int64(start>>agLog), int64(start&(1<<agLog-1))
	at := group*agBlocks + within
	if at < 0 || at > (1<<62)/blockSize {
		return xfsLog{}, errors.New("reading the superblock of the XFS: the log lies beyond any device")
	}
	return xfsLog{start: at * blockSize, blocks: logBlocks * blockSize / xfsLogBlock,
		needsRepair: be.Uint32(sb[216:])&xfsNeedsRepair != 0}, nil
}

// newestRecord scans the whole log. No block but a record's first can begin with
// the magic number: in all others the log replaces the first word by the cycle.
func newestRecord(r io.ReaderAt, log xfsLog) (xfsRecord, error) {
	var newest xfsRecord
	found := false
	buf := make([]byte, 1<<20)
	for block := int64(0); block < log.blocks; block += int64(len(buf)) / xfsLogBlock {
		chunk := buf[:min(int64(len(buf)), (log.blocks-block)*xfsLogBlock)]
		if _, err := r.ReadAt(chunk, log.start+block*xfsLogBlock); err != nil {
			return newest, fmt.Errorf("reading the log of the XFS: %w", err)
		}
		for at := 0; at < len(chunk); at += xfsLogBlock {
			record, ok := decodeRecord(chunk[at:at+xfsLogBlock], block+int64(at)/xfsLogBlock)
			if ok && (!found || record.lsn > newest.lsn) {
				newest, found = record, true
			}
		}
	}
	if !found {
		return newest, errors.New("reading the log of the XFS: there is no record in it")
	}
	return newest, nil
}

func decodeRecord(b []byte, block int64) (xfsRecord, bool) {
	be := binary.BigEndian
	if be.Uint32(b) != xfsLogMagic {
		return xfsRecord{}, false
	}
	return xfsRecord{block: block, version: be.Uint32(b[8:]), lsn: be.Uint64(b[16:]),
		ops: be.Uint32(b[40:]), size: be.Uint32(b[320:])}, true
}

// isUnmountRecord looks at the record's only operation, which follows the
// header: one block, or more in version 2 for larger records.
func isUnmountRecord(r io.ReaderAt, log xfsLog, record xfsRecord) (bool, error) {
	if record.ops != 1 {
		return false, nil
	}
	headers := int64(1)
	if record.version&2 != 0 && record.size > xfsHeaderCovers {
		headers = (int64(record.size) + xfsHeaderCovers - 1) / xfsHeaderCovers
	}
	op := make([]byte, 12)
	at := (record.block + headers) % log.blocks
	if _, err := r.ReadAt(op, log.start+at*xfsLogBlock); err != nil {
		return false, fmt.Errorf("reading the log of the XFS: %w", err)
	}
	return op[8] == xfsLogClient && op[9]&xfsUnmountTrans != 0, nil
}
