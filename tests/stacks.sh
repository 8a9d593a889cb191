# Run by TestStacks in a virtual machine: stacked devices of every kind, made by the programs of Debian, and the
# installer on and below each. Each command that is tried prints "## NAME STATUS" and its output, in which the
# disks bear the names that the test gave them.
export DM_DISABLE_UDEV=1 LVM_SYSTEM_DIR=/run/lvm
mkdir -p /run/programs /run/lvm /run/t
mount -t erofs -o ro /dev/disk-programs /run/programs
mount -t overlay -o lowerdir=/run/programs:/usr overlay /usr
cat >/run/lvm/lvm.conf <<-'CONF'
	backup { backup = 0 archive = 0 }
	activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
	devices { obtain_device_list_from_udev = 0 external_device_info_source = "none" scan = [ "/dev" ] }
CONF
names=
for link in /dev/disk-*; do
	names="$names;s,\\b$(readlink "$link")\\([0-9]*\\)\\b,${link#/dev/disk-}\\1,g"
done

# try NAME COMMAND... runs a command that may fail.
try() {
	name=$1 status=0
	shift
	"$@" >/run/out 2>&1 </dev/null || status=$?
	echo "## $name $status (at $(cut -d. -f1 /proc/uptime) s)"
	sed "$names" /run/out
}
# must COMMAND... runs a command of the test's own.
must() {
	"$@" >/run/must 2>&1 || {
		echo "FAILED: $*"
		cat /run/must
		exit 1
	}
}
node() { readlink "/dev/disk-$1"; }
to_disk() { installer to-disk --progress plain --source-imgref oci:/run/image:latest --bootloader none "$@"; }
written() { awk '{print $7}' "/sys/block/$(node "$1")/stat"; }
# refused NAME DISK FLAG... has to-disk refuse a disk, and prints the number of sectors written to it meanwhile.
refused() {
	name=$1 disk=$2
	shift 2
	sync
	before=$(written "$disk")
	try "$name" to_disk "$@" "/dev/disk-$disk"
	sync
	echo "sectors written: $(($(written "$disk") - before))"
}
# apart runs the commands that the last line of the last output names, and waits for the kernel to follow.
apart() {
	sed -n '$s/.*to take it apart: //p' /run/out | sed 's/, then /\n/g' >/run/commands
	while read -r command; do
		echo "remedy: $command"
		must sh -ec "$command" </dev/null
	done </run/commands
	for disk in "$@"; do
		for again in 1 2 3 4 5 6 7 8 9 10; do
			[ -n "$(ls "/sys/block/$(node "$disk")/holders")" ] || [ -e "/sys/block/$(node "$disk")/bcache" ] || break
			sleep 0.5
		done
	done
}
printf 'label: gpt\nstart=1MiB\n' | must sfdisk -q /dev/disk-luks
must lvm vgcreate my-vg /dev/disk-lvm
must lvm lvcreate -qq -y -Wn -n root -L 900M my-vg
must lvm lvcreate -qq -y -s -n snap -L 32M my-vg/root
printf secret >/run/key
must cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /run/key "/dev/$(node luks)1"
must cryptsetup luksOpen --key-file /run/key "/dev/$(node luks)1" secret
must lvm vgcreate deep /dev/mapper/secret
must lvm lvcreate -qq -y -Wn -n home -L 900M deep
must mdadm --create /dev/md0 --run --metadata=1.0 --level=1 --raid-devices=2 --assume-clean --bitmap=none /dev/disk-raid1 /dev/disk-raid2
must make-bcache -B /dev/disk-back -C /dev/disk-cache
for disk in back cache; do
	[ -e "/sys/block/$(node $disk)/bcache" ] || echo "/dev/$(node $disk)" >/sys/fs/bcache/register
done
sectors=$(blockdev --getsz /dev/disk-path)
must dmsetup create mpatha --uuid mpath-0installer --table "0 $sectors multipath 0 0 1 1 service-time 0 1 1 /dev/disk-path 1"
must dmsetup create lin --table "0 $(blockdev --getsz /dev/disk-linear) linear /dev/disk-linear 0"
for top in mapper/my--vg-root mapper/deep-home md0 bcache0 mapper/mpatha mapper/lin; do
	must mkfs.ext4 -q "/dev/$top"
	mkdir "/run/t/${top#*/}"
	must mount -o noinit_itable "/dev/$top" "/run/t/${top#*/}"
done
try made lsblk --noheadings --raw --output NAME,TYPE


for disk in lvm luks raid1 cache path linear; do refused "claimed-$disk" "$disk" --wipe; done
for disk in lvm luks cache; do try "holders-$disk" installer holders "/dev/disk-$disk"; done
try holders-top installer holders /dev/mapper/deep-home
try holders-mount installer holders /run/t/deep-home
# release MOUNT DISK... gives a mount back, and then the disks beneath, by the commands that the output names.
release() {
	mount=$1
	shift
	try "finalize-$mount" installer finalize "/run/t/$mount"
	! grep " /run/t/$mount " /proc/[0-9]*/mountinfo || echo "still mounted"
	apart "$@"
}
release my--vg-root lvm
release deep-home luks
release md0 raid1 raid2
release bcache0 back cache
release mpatha path
release lin linear
for disk in luks cache; do try "free-$disk" installer holders "/dev/disk-$disk"; done
for disk in lvm luks raid1 back; do refused "inactive-$disk" "$disk"; done

must lvm vgchange -ay my-vg
must lvm lvremove -y my-vg/snap
must mdadm --assemble /dev/md0 /dev/disk-raid1 /dev/disk-raid2
must dmsetup create lin --table "0 $(blockdev --getsz /dev/disk-luks) linear /dev/disk-luks 0"
echo "## sizes 0"
for top in mapper/my--vg-root md0 mapper/lin; do echo "${top#*/} $(blockdev --getsize64 "/dev/$top")"; done
for top in mapper/my--vg-root md0 mapper/lin; do try "install-${top#*/}" to_disk --wipe "/dev/$top"; done
try after-md0 installer holders /dev/md0
must vgchange -an my-vg
must mdadm --stop /dev/md0
must dmsetup remove lin

# The superblock of the other version is put back: each clears the other's.
last=$(($(blockdev --getsz /dev/disk-raid1) - 32))
dd if=/dev/disk-raid1 of=/run/superblock skip="$last" count=32 status=none
must mdadm --zero-superblock /dev/disk-raid1
must mdadm --create /dev/md8 --run --metadata=0.90 --level=1 --raid-devices=2 --assume-clean /dev/disk-raid1 missing
must mdadm --stop /dev/md8
dd if=/run/superblock of=/dev/disk-raid1 seek="$last" conv=fsync status=none
try stale-raid1 wipefs --noheadings --output TYPE,OFFSET /dev/disk-raid1
try stale-0.90 mdadm --examine --metadata=0.90 /dev/disk-raid1
try stale-1.0 mdadm --examine --metadata=1.0 /dev/disk-raid1
try wiped-raid1 to_disk --wipe /dev/disk-raid1
