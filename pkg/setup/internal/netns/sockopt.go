package netns

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Getsockopt calls getsockopt(2). The kernel reads the buffer and then writes to it, so the functions
// of golang.org/x/sys/unix, which take no buffer, do not suffice.
func Getsockopt(fd, level, option int, buffer []byte) error {
	size := uint32(len(buffer))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
