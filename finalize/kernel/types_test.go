package kernel

import (
	"testing"

	"github.com/cilium/ebpf/btf"
)

// TestTypes compares fields with those that the library of the BPF loader finds.
func TestTypes(t *testing.T) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	types, closeTypes, err := openTypes()
	if err != nil {
		t.Fatal(err)
	}
	defer closeTypes()
	fields := 0
	for _, name := range []string{"task_struct", "files_struct", "fdtable", "file", "mount", "super_block", "mm_struct", "vm_area_struct", "sk_buff", "inode"} {
		var s *btf.Struct
		if err := spec.TypeByName(name, &s); err != nil {
			t.Fatal(err)
		}
		for _, m := range s.Members {
			size, err := btf.Sizeof(m.Type)
			if err != nil || m.Name == "" || m.BitfieldSize != 0 {
				continue
			}
			fields++
			_, pointer := btf.UnderlyingType(m.Type).(*btf.Pointer)
			want := field{uint64(m.Offset.Bytes()), size, pointer}
			if got := types.field(name, m.Name); got != want {
				t.Errorf("%s.%s: %+v, want %+v", name, m.Name, got, want)
			}
		}
	}
	if types.err != nil || fields < 300 {
		t.Errorf("%d fields compared, error %v", fields, types.err)
	}
}

// TestTypesBroken has texts that are no BTF, or end too early.
func TestTypesBroken(t *testing.T) {
	for _, raw := range [][]byte{nil, make([]byte, 100), {0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if _, err := parseTypes(raw); err == nil {
			t.Errorf("%v: no error", raw)
		}
	}
	short := &types{text: []byte{1, 2}, at: []uint32{0, 0}, structs: map[string]uint32{"x": 1}}
	if short.field("x", "y"); short.err == nil {
		t.Error("a type that ends early: no error")
	}
}

// BenchmarkLayout reads the types that each search needs.
func BenchmarkLayout(b *testing.B) {
	for b.Loop() {
		if _, err := readLayout(); err != nil {
			b.Fatal(err)
		}
	}
}
