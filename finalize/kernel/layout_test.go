package kernel

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// TestLayoutOfOtherKernels finds the fields that other kernels name otherwise. Their types are those
// of the running kernel with the differences.
func TestLayoutOfOtherKernels(t *testing.T) {
	number := &btf.Int{Name: "int", Size: 4}
	for _, c := range []struct {
		name         string
		counts       []string // fields of struct mnt_pcp
		count, given uint64
		apart        bool
	}{
		{"Linux 6.1", []string{"mnt_count", "mnt_writers"}, 0, 0, false},
		{"Linux 7.2", []string{"mnt_writers", "mnt_gets", "mnt_puts"}, 4, 8, true},
	} {
		counts := &btf.Struct{Name: "mnt_pcp", Size: uint32(4 * len(c.counts))}
		for i, name := range c.counts {
			counts.Members = append(counts.Members, btf.Member{Name: name, Type: number, Offset: btf.Bits(32 * i)})
		}
		l, err := layoutOf(typesWith(t, counts))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if l.count.offset != c.count || l.count.size != 4 || l.given.offset != c.given || (l.given.size == 4) != c.apart {
			t.Errorf("%s: references taken %+v, given back %+v", c.name, l.count, l.given)
		}
	}
	if _, err := layoutOf(typesWith(t, &btf.Struct{Name: "mnt_pcp", Size: 4})); err == nil {
		t.Error("a kernel without a count of references: no error")
	}
}

// typesWith returns the types of the running kernel, but for the structures that are given.
func typesWith(t *testing.T, other ...*btf.Struct) *types {
	t.Helper()
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var list []btf.Type
	for _, s := range other {
		list = append(list, s)
	}
	for _, name := range structures {
		var s *btf.Struct
		if err := spec.TypeByName(name, &s); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(other, func(o *btf.Struct) bool { return o.Name == name }) {
			list = append(list, shallow(s).(*btf.Struct))
		}
	}
	b, err := btf.NewBuilder(list, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	types, err := parseTypes(raw)
	if err != nil {
		t.Fatal(err)
	}
	return types
}

// shallow is a type whose pointers lead nowhere: they would lead to all types of the kernel.
func shallow(t btf.Type) btf.Type {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Pointer:
		return &btf.Pointer{Target: (*btf.Void)(nil)}
	case *btf.Array:
		return &btf.Array{Index: t.Index, Type: shallow(t.Type), Nelems: t.Nelems}
	case *btf.Struct:
		s := *t
		s.Members = shallowMembers(t.Members)
		return &s
	case *btf.Union:
		u := *t
		u.Members = shallowMembers(t.Members)
		return &u
	default:
		return t
	}
}

func shallowMembers(list []btf.Member) []btf.Member {
	list = slices.Clone(list)
	for i := range list {
		list[i].Type = shallow(list[i].Type)
	}
	return list
}
