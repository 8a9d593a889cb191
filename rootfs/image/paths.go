package image

import "fmt"

// Paths returns the files and directories of this machine that the image is read from; none for a
// registry.
func (r Ref) Paths() ([]string, error) {
	switch r.Transport {
	case TransportOCI, TransportOCIArchive, TransportDockerArchive:
		return []string{parseLayoutName(r.Name).path}, nil
	case TransportDir, TransportRootfs:
		return []string{r.Name}, nil
	case TransportContainersStorage:
		o, _, err := storeOptions(r.Name)
		if err != nil {
			return nil, fmt.Errorf("finding podman's storage: %w", err)
		}
		paths := []string{o.GraphRoot, o.RunRoot}
		if o.ImageStore != "" {
			paths = append(paths, o.ImageStore)
		}
		return paths, nil
	}
	return nil, nil
}
