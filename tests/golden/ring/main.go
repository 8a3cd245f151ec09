// Writes the golden assignments that core/ring/hash.rs is tested with: which shard of a ring a key goes to, by an
// implementation of controller-sharding's hash ring of its own, with the XXH64 that controller-sharding uses.
//
//	go run . > ../../../src/core/ring/golden.txt
package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

const (
	tokensPerShard = 100
	keyCount       = 1000
)

type ring struct {
	hashes []uint64
	shards map[uint64]string
	shared int
}

func ordinals(prefix string, count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return names
}

func build(names []string) ring {
	r := ring{shards: map[uint64]string{}}
	for _, name := range names {
		for i := range tokensPerShard {
			token := xxhash.Sum64String(fmt.Sprintf("%s%d", name, i))
			// Of shards with the same token the one with the smallest name has it, in whatever order they come.
			if other, taken := r.shards[token]; taken {
				r.shared++
				if other < name {
					continue
				}
			}
			r.shards[token] = name
		}
	}
	for token := range r.shards {
		r.hashes = append(r.hashes, token)
	}
	slices.Sort(r.hashes)
	return r
}

func (r ring) shard(key string) string {
	hash := xxhash.Sum64String(key)
	for _, token := range r.hashes {
		if token >= hash {
			return r.shards[token]
		}
	}
	return r.shards[r.hashes[0]]
}

func main() {
	rings := [][]string{
		{"op-0"},
		ordinals("op-", 2),
		ordinals("op-", 3),
		ordinals("op-", 4),
		// "op-1" + "10" is "op-11" + "0": tokens that collide.
		ordinals("op-", 12),
		ordinals("op-", 20),
		ordinals("op-", 112),
		{"op-11", "op-1"},
		{"a111", "a11", "a1", "a"},
		{"webhosting-operator-7d9c8b7f6d-x2x4k", "webhosting-operator-7d9c8b7f6d-9zq8h", "webhosting-operator-7d9c8b7f6d-mn5wt"},
		{"checksum-controller-0.shards.example", "Shard_with.every-sign", strings.Repeat("s", 63)},
		ordinals("shard-", 5),
	}
	kinds := []struct {
		id         string
		namespaced bool
	}{
		{"/Secret", true}, {"/ConfigMap", true}, {"apps/Deployment", true}, {"webhosting.timebertt.dev/Website", true},
		{"webhosting.timebertt.dev/Theme", false}, {"/Namespace", false},
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprintln(out, "# Written by tests/golden/ring. A ring: its distinct tokens, the tokens that two shards share, its shards.")
	fmt.Fprintln(out, "# A key: for each ring, in that order, the index of its shard among the ring's.")
	built := make([]ring, len(rings))
	for i, names := range rings {
		built[i] = build(names)
		fmt.Fprintf(out, "ring %d %d %s\n", len(built[i].hashes), built[i].shared, strings.Join(names, " "))
	}
	for i := range keyCount {
		kind := kinds[i%len(kinds)]
		namespace := ""
		if kind.namespaced {
			namespace = fmt.Sprintf("ns-%d", i%37)
		}
		key := fmt.Sprintf("%s/%s/object-%d", kind.id, namespace, i)
		fmt.Fprintf(out, "key %s", key)
		for j, r := range built {
			fmt.Fprintf(out, " %d", slices.Index(rings[j], r.shard(key)))
		}
		fmt.Fprintln(out)
	}
}
