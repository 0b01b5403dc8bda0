// Peak runs a program with arguments. Then it prints, in the last line of standard error, the peak
// memory of the program in kilobytes, and its CPU time in seconds. Its exit status is that of the
// program. Peak must be small itself, because the kernel also counts the memory of the process that
// starts the program (ru_maxrss in getrusage(2)).
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	fmt.Fprintln(os.Stderr, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss, cpu.Seconds())
	os.Exit(cmd.ProcessState.ExitCode())
}
