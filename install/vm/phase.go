package vm

import "time"

// Phase is a phase in the life of a virtual machine.
type Phase string

// The phases, in order. The sign that ends one begins the next.
const (
	PhaseStart     Phase = "start"     // QEMU and firmware, until the first output on the console
	PhaseKernel    Phase = "kernel"    // until the first heartbeat
	PhaseDevices   Phase = "devices"   // until the installer starts
	PhaseInstaller Phase = "installer" // until its exit status
	PhaseOff       Phase = "power-off" // until QEMU ends
)

// silence is the longest pause between two heartbeats. A busy host can stop a guest for seconds.
const silence = 60 * time.Second

// limits returns the longest duration of each phase; for the installer, of the time between two of
// its events. Emulation on a busy machine is slow. KVM is fast where it works, and fails in the
// first two phases where it does not.
func limits(a Accel) map[Phase]time.Duration {
	if a == AccelKVM {
		return map[Phase]time.Duration{
			PhaseStart: 12 * time.Second, PhaseKernel: 20 * time.Second, PhaseDevices: 30 * time.Second,
			PhaseInstaller: 10 * time.Minute, PhaseOff: 30 * time.Second,
		}
	}
	return map[Phase]time.Duration{
		PhaseStart: 60 * time.Second, PhaseKernel: 3 * time.Minute, PhaseDevices: 2 * time.Minute,
		PhaseInstaller: 15 * time.Minute, PhaseOff: 2 * time.Minute,
	}
}
