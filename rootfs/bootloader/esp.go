package bootloader

import (
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// efiApplication is the subsystem of an image that firmware may start, Microsoft PE format section
// "Windows Subsystem".
const efiApplication = 10

// writeESP writes one file with its parent directories.
func writeESP(esp Place, name string, data []byte) error {
	return copyToESP(esp, name, bytes.NewReader(data), int64(len(data)))
}

// copyToESP writes the size bytes of r as name, with its parent directories.
func copyToESP(esp Place, name string, r io.Reader, size int64) error {
	if err := copyCompared(esp, name, r, size); err != nil {
		return fmt.Errorf("on the EFI system partition: %w", err)
	}
	return nil
}

// copyCompared writes the size bytes of r as name, with its parent directories, and compares the
// file with that content where the place can be read back.
func copyCompared(to Place, name string, r io.Reader, size int64) error {
	if err := to.MkdirAll(path.Dir(name)); err != nil {
		return fmt.Errorf("creating directory %s: %w", path.Dir(name), err)
	}
	sum := sha256.New()
	if err := to.WriteFile(name, size, io.TeeReader(r, sum)); err != nil {
		return fmt.Errorf("writing %s (%d bytes): %w", name, size, err)
	}
	if reader, ok := to.(fs.FS); ok {
		if err := compareFile(reader, name, size, sum.Sum(nil)); err != nil {
			return fmt.Errorf("reading %s back: %w", name, err)
		}
	}
	return nil
}

func compareFile(fsys fs.FS, name string, size int64, want []byte) error {
	file, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha256.New()
	got, err := io.Copy(sum, file)
	if err != nil {
		return err
	}
	if got != size || !bytes.Equal(sum.Sum(nil), want) {
		return fmt.Errorf("%d bytes that are not the %d written", got, size)
	}
	return nil
}

// checkEFIImage checks that data is a program that UEFI firmware of the machine starts.
func checkEFIImage(data []byte, machine uint16) error {
	file, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("not an EFI program: %w", err)
	}
	defer file.Close()
	if file.Machine != machine {
		return fmt.Errorf("an EFI program for machine type %#x instead of %#x", file.Machine, machine)
	}
	header, ok := file.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return errors.New("not a 64-bit EFI program")
	}
	if header.Subsystem != efiApplication {
		return fmt.Errorf("a PE program of subsystem %d instead of %d (EFI application)", header.Subsystem, efiApplication)
	}
	return nil
}
