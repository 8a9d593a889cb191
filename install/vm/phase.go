package vm

import "time"

// Phase is how far a virtual machine has come.
type Phase string

// The phases, in order. Each ends with the sign that begins the next.
const (
	PhaseStart     Phase = "start"     // QEMU and firmware, until the console says anything
	PhaseKernel    Phase = "kernel"    // until the first heartbeat
	PhaseDevices   Phase = "devices"   // until the installer starts
	PhaseInstaller Phase = "installer" // until its exit status
	PhaseOff       Phase = "power-off" // until QEMU ends
)

// silence is how long the heartbeat may stop. The guest's memory and disk are
// the host's: a busy host stops it for seconds.
const silence = 60 * time.Second

// limits bound each phase. The installer's own bound is on the time between two
// of its events. Emulation on a busy machine is slow; KVM that works is not, and
// the two first phases are where KVM that does not work shows.
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
