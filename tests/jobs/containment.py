"""A job that tries to get out, and writes down what it found: for each attempt whether it was refused, and how.

An attempt raises OSError when it is refused. `CONTROL` has attempts of the same kinds that must succeed, so that one which could never
succeed is noticed. `HOST_PORT` in the environment is a port of the host on which somebody listens.
"""

import ctypes
import json
import os
import signal
import socket
import stat
import struct

HOST_PORT = int(os.environ["HOST_PORT"])
MACHINE, GATEWAY, NAME_SERVER, BRIDGE, METADATA = "10.0.2.15", "10.0.2.2", "10.0.2.3", "172.17.0.1", "169.254.169.254"
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
AF_PACKET, AF_VSOCK = 17, 40
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def refused(why):
    raise PermissionError(why)


def expect(found, expected):
    """For what is a state and no attempt: refused by being as it should be."""
    if found == expected:
        refused(f"{found!r}")


def tcp(address, port):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as connection:
        connection.settimeout(3)
        connection.connect((address, port))


def udp(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        connection.sendto(b"x", (address, port))


def unix(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def raw_socket(*kind):
    socket.socket(*kind).close()


def read(path):
    with open(path, "rb", buffering=0) as file:
        return file.read(16)


def read_some(path):
    if not read(path):
        refused("nothing in it")


def listing(path):
    if not os.listdir(path):
        refused("nothing in it")


def write(path):
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, b"0\n")
    finally:
        os.close(file)


def create(path):
    with open(path, "xb"):
        pass
    os.remove(path)


def succeeded(result):
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def call(name, *arguments):
    succeeded(getattr(libc, name)(*arguments))


def syscall(number, *arguments):
    succeeded(libc.syscall(ctypes.c_long(number), *arguments))


def device(kind, major, minor):
    path = "/workspace/outputs/device"
    os.mknod(path, kind | 0o600, os.makedev(major, minor))
    try:
        read(path)
    finally:
        os.remove(path)


def in_child(attempt):
    """Makes an attempt in another process, because it would change this one."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            attempt()
            os.write(writer, b"0")
        except OSError as error:
            os.write(writer, str(error.errno or 1).encode())
        finally:
            os._exit(0)
    os.close(writer)
    code = int(os.read(reader, 16) or b"0")
    os.close(reader)
    os.waitpid(child, 0)
    if code:
        raise OSError(code, os.strerror(code))


def with_a_process(attempt):
    """Makes an attempt while there is another process."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        attempt()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def status(field):
    with open("/proc/self/status") as file:
        return next(line.split(":", 1)[1].strip() for line in file if line.startswith(f"{field}:"))


def profile():
    """AppArmor's; that there is none is no refusal."""
    try:
        with open("/proc/self/attr/current") as file:
            return file.read().strip()
    except OSError as error:
        return str(error)


def lines(path):
    with open(path) as file:
        return len(file.readlines())


def others():
    """The command lines of processes that are not this job's."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                found.append(file.read().replace(b"\0", b" ").decode(errors="replace"))
        except FileNotFoundError:
            pass
    return [line for line in found if "main.py" not in line]


def known():
    """The numbers of processes that the kernel knows here, whether they may be signalled or not: but for the first, which starts
    the job, and the job itself. A machine that was booted for the job has given none above that."""
    found = []
    for pid in range(2, 1 << 13):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        except PermissionError:
            pass
        found.append(pid)
    return sorted(set(found) - {os.getpid()})


def ask_the_tpm():
    """TPM2_PCR_Read of PCR 14."""
    with open("/dev/tpmrm0", "r+b", buffering=0) as tpm:
        tpm.write(struct.pack(">HIIIHB3s", 0x8001, 20, 0x17E, 1, 0x000B, 3, b"\0\x40\0"))
        tpm.read(4096)


def each(name, attempt, values):
    """The same attempt for each of several values."""
    return {f"{name} {value!r}": (lambda value: lambda: attempt(value))(value) for value in values}


ATTEMPTS = {
    # The network.
    "names": lambda: socket.getaddrinfo("example.org", 80),
    "a name server": lambda: udp(NAME_SERVER, 53),
    "a name server over TCP": lambda: tcp(NAME_SERVER, 53),
    "a port of the host": lambda: tcp(GATEWAY, HOST_PORT),
    "the gateway": lambda: tcp(GATEWAY, 80),
    "an address in the internet": lambda: tcp("1.1.1.1", 443),
    "an address in the internet, version 6": lambda: tcp("2606:4700:4700::1111", 443),
    "the metadata service": lambda: tcp(METADATA, 80),
    **each("the server at", lambda address: tcp(address, 8443),
           [MACHINE, BRIDGE, "172.17.0.2", GATEWAY, "127.0.0.1", "0.0.0.0", "::1", METADATA]),
    "broadcasts": lambda: udp("255.255.255.255", 67),
    "network devices": lambda: expect([name for _, name in socket.if_nameindex()], ["lo"]),
    "routes": lambda: expect(lines("/proc/net/route"), 1),
    "packets by hand": lambda: raw_socket(AF_PACKET, socket.SOCK_RAW, 0),
    "raw IP": lambda: raw_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "the hypervisor": lambda: socket.socket(AF_VSOCK, socket.SOCK_STREAM).connect((2, 8443)),
    "another network": lambda: in_child(lambda: call("unshare", CLONE_NEWNET)),
    # The container engine.
    **each("the socket", unix, ["/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock",
                                "/run/docker/containerd/containerd.sock", "/proc/1/root/run/docker.sock"]),
    "sockets without a file": lambda: expect(lines("/proc/net/unix"), 1),
    # The TPM.
    "/dev/tpm0": lambda: read("/dev/tpm0"),
    "/dev/tpmrm0": ask_the_tpm,
    "a TPM, made by hand": lambda: device(stat.S_IFCHR, 10, 224),
    "a resource-managed TPM, made by hand": lambda: device(stat.S_IFCHR, 253, 65536),
    # Files of the machine.
    **each("the folder", listing, [
        "/usr/lib/aicert", "/etc/docker", "/var/lib/docker", "/var/lib/aicert", "/run/aicert",
        "/var/lib/containerd", "/proc/1/root/usr/lib/aicert", "/proc/1/cwd/../../../usr/lib/aicert", "/sys/kernel/security",
        "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/fs/bpf", "/sys/firmware", "/sys/firmware/qemu_fw_cfg",
        "/sys/firmware/efi"]),
    "a file of the machine": lambda: read("/usr/share/aicert/release.json"),
    "a handle of a file": lambda: syscall(304, -100, ctypes.create_string_buffer(struct.pack("=IiQ", 8, 1, 2), 16), 0),
    "a program of the machine": lambda: in_child(lambda: os.execv("/usr/lib/aicert/aicert-server", ["x"])),
    # Other processes.
    "other processes": lambda: expect(others(), []),
    "numbers of other processes": lambda: expect(known(), []),
    "a signal to all others": lambda: os.kill(-1, 0),
    "the machine's namespaces": lambda: in_child(lambda: call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0)),
    # Mounts.
    "a mount": lambda: call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "a mount of the kernel's": lambda: call("mount", b"none", b"/mnt", b"proc", 0, None),
    "a mount, the new way": lambda: syscall(430, b"tmpfs", 0),
    "a writable source": lambda: call("mount", b"none", b"/workspace/src", None, 32, None),
    "an unmount": lambda: call("umount2", b"/workspace/src", 2),
    "another root": lambda: in_child(lambda: os.chroot("/workspace")),
    "other mounts": lambda: in_child(lambda: call("unshare", CLONE_NEWNS)),
    "other users": lambda: in_child(lambda: call("unshare", CLONE_NEWUSER)),
    # Devices.
    **each("reading", read, ["/dev/vda", "/dev/vda2", "/dev/sda", "/dev/dm-0", "/dev/dm-1", "/dev/mapper/control", "/dev/mem",
                             "/dev/port", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/hwrng", "/dev/ttyS0"]),
    "the disk, made by hand": lambda: device(stat.S_IFBLK, 254, 0),
    "the scratch space, made by hand": lambda: device(stat.S_IFBLK, 253, 1),
    "the memory, made by hand": lambda: device(stat.S_IFCHR, 1, 1),
    "devices that are unusual": lambda: expect(sorted(set(os.listdir("/dev")) - {
        "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero"}), []),
    # The kernel.
    **each("reading", read_some, ["/proc/kcore", "/proc/kmsg", "/proc/keys"]),
    "addresses of the kernel": lambda: expect(int(read("/proc/kallsyms"), 16), 0),
    "the kernel's messages": lambda: call("klogctl", 3, ctypes.create_string_buffer(4096), 4096),
    **each("writing", write, ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches",
                              "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/fs/cgroup/cgroup.procs", "/sys/power/state",
                              "/proc/irq/default_smp_affinity"]),
    "a module": lambda: syscall(175, b"", 0, b""),
    "another kernel": lambda: syscall(246, 0, 0, None, 0),
    "a program in the kernel": lambda: syscall(321, 5, ctypes.create_string_buffer(128), 128),
    "performance counters": lambda: syscall(298, ctypes.create_string_buffer(struct.pack("=II", 1, 112), 112), -1, 0, -1, 0),
    "keys": lambda: syscall(248, b"user", b"x", b"x", 1, -3),
    "page faults": lambda: syscall(323, 0),
    "ports": lambda: call("iopl", 3),
    "a reboot": lambda: syscall(169, 0xFEE1DEAD, 672274793, 0, None),
    "the clock": lambda: call("settimeofday", ctypes.create_string_buffer(16), None),
    "the machine's name": lambda: socket.sethostname("x"),
    "swap": lambda: call("swapon", b"/workspace/outputs/none", 0),
    # Privileges.
    "root": lambda: expect(os.getuid() == 0 or os.getgid() == 0, False),
    "becoming root": lambda: in_child(lambda: os.setuid(0)),
    **each("capabilities", lambda field: expect(int(status(field), 16), 0), ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]),
    "new privileges": lambda: expect(status("NoNewPrivs"), "1"),
    "system calls without a filter": lambda: expect(status("Seccomp"), "2"),
    "life without a profile": lambda: expect(profile(), "docker-default (enforce)"),
    # What was measured.
    **each("changing", write, ["/workspace/src/main.py", "/workspace/resources/data.bin", "/etc/passwd"]),
    **each("adding", create, ["/workspace/src/new.py", "/workspace/resources/new", "/usr/bin/new", "/new"]),
    "removing the source": lambda: os.remove("/workspace/src/main.py"),
    "another mode": lambda: os.chmod("/workspace/src/main.py", 0o777),
    "secrets in the environment": lambda: expect(sorted(name for name in os.environ if any(
        word in name.upper() for word in ("TOKEN", "KEY", "SECRET", "PASS", "DOCKER", "AICERT"))), []),
}

CONTROL = {
    "a port of its own": lambda: tcp("127.0.0.1", port.getsockname()[1]),
    "a datagram to itself": lambda: udp("127.0.0.1", port.getsockname()[1]),
    "a socket of its own": lambda: unix(named.getsockname()),
    "a file of the image": lambda: read_some("/etc/passwd"),
    "a folder of the image": lambda: listing("/usr/lib"),
    "a device": lambda: read_some("/dev/urandom"),
    "its source": lambda: read_some("/workspace/src/main.py"),
    "its input": lambda: read_some("/workspace/resources/data.bin"),
    "adding an output": lambda: create("/workspace/outputs/new"),
    "changing an output": lambda: write("/workspace/outputs/written"),
    "a signal to itself": lambda: os.kill(os.getpid(), 0),
    "a process of its own": lambda: with_a_process(lambda: known() or refused("it is not seen")),
    "a signal to a process of its own": lambda: with_a_process(lambda: os.kill(-1, 0)),
    "a call of the kernel": lambda: syscall(39),
    "a call of the library": lambda: call("getpid"),
    "something in another process": lambda: in_child(lambda: os.setuid(os.getuid())),
}


def late(*_):
    raise TimeoutError("no answer")


def make(attempt):
    signal.alarm(5)
    try:
        attempt()
        return {"refused": False, "how": "it succeeded"}
    except OSError as error:
        return {"refused": True, "how": str(error)}
    finally:
        signal.alarm(0)


signal.signal(signal.SIGALRM, late)
print(f"trying {len(ATTEMPTS)} ways out", flush=True)
attempts = {name: make(attempt) for name, attempt in ATTEMPTS.items()}
port = socket.create_server(("127.0.0.1", 0))
named = socket.socket(socket.AF_UNIX)
named.bind("/workspace/outputs/socket")
named.listen()
open("/workspace/outputs/written", "w").close()
control = {name: make(attempt) for name, attempt in CONTROL.items()}
for path in ("/workspace/outputs/socket", "/workspace/outputs/written"):
    os.remove(path)
with open("/workspace/outputs/found.json", "w") as file:
    json.dump({"attempts": attempts, "control": control}, file, indent=1)
# Enough for the way back to be seen.
with open("/workspace/outputs/weights.bin", "wb") as file:
    for number in range(32):
        file.write(bytes([number]) * (1 << 20))
print("tried everything", flush=True)
