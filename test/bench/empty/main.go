// Empty does nothing. Its run time is that of the start of any Go program.
package main

func main() {}
