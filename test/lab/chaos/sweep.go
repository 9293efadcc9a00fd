package chaos

import "errors"

// sweep takes away what a daemon that was killed left of its device.
func (r *run) sweep() error {
	var errs []error
	for _, n := range r.lab.Nodes {
		_, err := n.Sweep()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
