// Package shortsort sorts short lists without adding much to the file of a program.
package shortsort

// Stable sorts a list by insertion, and keeps the order of equal elements. A list of n elements in
// reverse order takes n² steps, and a list that is almost sorted takes n steps. The functions of
// package slices are faster for long lists, but for each type of elements they make the file of the
// plugins 15 to 20 KB larger.
func Stable[T any](list []T, less func(a, b T) bool) {
	for i := range list {
		for ; i > 0 && less(list[i], list[i-1]); i-- {
			list[i-1], list[i] = list[i], list[i-1]
		}
	}
}
