// Package contrib tests what contrib/ gives to other cluster managers: the OCF
// resource agent and the scripts for keepalived, ucarp and systemd. It calls them
// as these programs do, with a hastctl that answers as told, and with the real one
// on a pair of the lab. It has tests only, and imports nothing of the product.
package contrib
