package flock

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxCommand is the greatest length of a process's command line in an error, in bytes.
const maxCommand = 200

// holders returns the processes that hold a lock on the file of fd. It reads /proc/locks, which has
// lines such as:
//
//	1: FLOCK  ADVISORY  WRITE 4711 00:18:1234 0 EOF
//
// Here 4711 is the process, 00:18 is the device of the file system, and 1234 is the inode. A line
// with "->" describes a process that waits. holders cannot compare the device, because stat(2)
// returns another device on some file systems (btrfs). So it compares only the inode, and then
// looks for the file among the open files of the process.
func holders(fd int) string {
	var st unix.Stat_t
	f, err := os.Open("/proc/locks")
	if err != nil || unix.Fstat(fd, &st) != nil {
		return "an unknown process"
	}
	defer f.Close()
	var found []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], fmt.Sprintf(":%d", st.Ino)) || !mayHold(fields[4], &st) {
			continue
		}
		found = append(found, describe(fields[4]))
	}
	if len(found) == 0 {
		return "an unknown process"
	}
	return strings.Join(found, ", ")
}

// mayHold reports whether a process has the file open. It also returns true if it cannot list the
// process's open files. The process may have ended in this case, but a child may have inherited the
// lock.
func mayHold(pid string, file *unix.Stat_t) bool {
	dir := "/proc/" + pid + "/fd/"
	open, err := os.ReadDir(dir)
	for _, fd := range open {
		var st unix.Stat_t
		if unix.Stat(dir+fd.Name(), &st) == nil && st.Dev == file.Dev && st.Ino == file.Ino {
			return true
		}
	}
	return err != nil
}

// describe returns the ID and the command line of a process. For a stopped process, it adds the
// command that continues the process.
func describe(pid string) string {
	dir := "/proc/" + pid + "/"
	command, err := os.ReadFile(dir + "cmdline")
	if err != nil || len(command) == 0 {
		return "process " + pid
	}
	command = bytes.TrimSpace(bytes.ReplaceAll(command[:min(len(command), maxCommand)], []byte{0}, []byte{' '}))
	who := fmt.Sprintf("process %s (%s)", pid, command)
	// In this file, the process's state is the word after the name in parentheses:
	// proc_pid_stat(5).
	stat, _ := os.ReadFile(dir + "stat")
	_, after, _ := strings.Cut(string(stat[max(0, bytes.LastIndexByte(stat, ')')):]), " ")
	if strings.HasPrefix(strings.ToLower(after), "t") {
		who += fmt.Sprintf(", which is stopped; continue it with: kill -CONT %s", pid)
	}
	return who
}
