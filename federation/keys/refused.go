package keys

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
)

// ErrPublicSecret is the refusal of a key by which anybody can sign.
var ErrPublicSecret = errors.New("keys: the private half of this key is known to everybody")

// specimens are seeds that are printed in documents: the test vectors of the
// Matrix specification and of RFC 8032, and those that forgotten initialisation
// makes.
// spec: appendices#cryptographic-test-vectors
var specimens = []string{
	"6090c103d5e7af6b15a970fd563ed75549e6159719ae5c3c31dee4316fb75c0d",
	"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
	"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
	"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
	"f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
	"833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"0101010101010101010101010101010101010101010101010101010101010101",
	"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
}

// smallOrder are the encodings of the points of small order, sign bit cleared.
// Signatures that verify with them can be made without any private key.
var smallOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

var refused = func() map[[ed25519.PublicKeySize]byte]bool {
	set := map[[ed25519.PublicKeySize]byte]bool{}
	for _, text := range specimens {
		seed, _ := hex.DecodeString(text)
		set[[ed25519.PublicKeySize]byte(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))] = true
	}
	for _, text := range smallOrder {
		point, _ := hex.DecodeString(text)
		set[[ed25519.PublicKeySize]byte(point)] = true
		point[31] |= 0x80
		set[[ed25519.PublicKeySize]byte(point)] = true
	}
	return set
}()

// refuse fails for a key by which anybody can sign.
func refuse(public ed25519.PublicKey) error {
	if len(public) != ed25519.PublicKeySize {
		return errors.New("keys: not an ed25519 key")
	}
	if refused[[ed25519.PublicKeySize]byte(public)] {
		return ErrPublicSecret
	}
	return nil
}
