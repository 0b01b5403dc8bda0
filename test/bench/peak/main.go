// Peak runs a program and prints the peak memory of the program, in kilobytes, on standard error.
// Peak must be small itself, because the kernel also counts the memory of the process that starts
// the program (ru_maxrss in getrusage(2)).
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	cmd := exec.Command(os.Args[1])
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
}
