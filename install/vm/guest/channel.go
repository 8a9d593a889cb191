package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"installer/install/vm/internal/wire"

	"golang.org/x/sys/unix"
)

// heartbeat is the time between two heartbeats.
const heartbeat = 500 * time.Millisecond

// channel carries messages to the host.
type channel struct {
	mu   sync.Mutex
	port *os.File
	quit chan struct{}
	done chan struct{}
}

// openChannel opens the port and begins the heartbeat.
func openChannel(events *uevents) (*channel, error) {
	node, err := events.await(byAttribute("/sys/class/virtio-ports", "name", wire.Port))
	if err != nil {
		return nil, err
	}
	// Not by os.OpenFile: the runtime would poll the port, which reports readiness only for input.
	fd, err := unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the channel to the host (%s): %w", node, err)
	}
	c := &channel{port: os.NewFile(uintptr(fd), node), quit: make(chan struct{}), done: make(chan struct{})}
	go c.beat()
	return c, nil
}

func (c *channel) beat() {
	defer close(c.done)
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		if err := c.send(wire.Message{Beat: true}); err != nil {
			fmt.Fprintln(os.Stderr, "installer: guest:", err)
			return
		}
		select {
		case <-ticker.C:
		case <-c.quit:
			return
		}
	}
}

// send writes one message.
func (c *channel) send(m wire.Message) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding a message for the host: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.port.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("sending a message to the host: %w", err)
	}
	return nil
}

// close ends the heartbeat and sends the last message.
func (c *channel) close(last wire.Message) error {
	close(c.quit)
	<-c.done
	return errors.Join(c.send(last), c.port.Close())
}
