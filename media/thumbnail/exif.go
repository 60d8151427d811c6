package thumbnail

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"io"
)

// turn says how a picture has to be turned to stand upright, as EXIF numbers it.
type turn int

const upright turn = 1

// swaps tells whether width and height change places.
func (t turn) swaps() bool { return t >= 5 }

func rgb(y, cb, cr uint8) (r, g, b uint8) { return color.YCbCrToRGB(y, cb, cr) }

// maxHeader is how far into a JPEG its notes are looked for.
const maxHeader = 256 << 10

// orientation finds how a JPEG has to be turned; whatever cannot be read says
// upright.
func orientation(r io.ReadSeeker) (turn, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return upright, err
	}
	head, err := io.ReadAll(io.LimitReader(r, maxHeader))
	if err != nil {
		return upright, err
	}
	for at := 2; at+4 <= len(head) && head[at] == 0xff; {
		marker, size := head[at+1], int(binary.BigEndian.Uint16(head[at+2:]))
		if marker == 0xda || size < 2 || at+2+size > len(head) {
			break // the picture begins
		}
		if note, ok := bytes.CutPrefix(head[at+4:at+2+size], []byte("Exif\x00\x00")); ok && marker == 0xe1 {
			return tiffOrientation(note), nil
		}
		at += 2 + size
	}
	return upright, nil
}

// tiffOrientation reads the tag 0x0112 of the first directory.
func tiffOrientation(b []byte) turn {
	if len(b) < 8 {
		return upright
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch string(b[:4]) {
	case "II*\x00":
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return upright
	}
	at := int64(order.Uint32(b[4:]))
	if at+2 > int64(len(b)) {
		return upright
	}
	entries := int(order.Uint16(b[at:]))
	for i := range entries {
		e := at + 2 + 12*int64(i)
		if e+12 > int64(len(b)) {
			break
		}
		if order.Uint16(b[e:]) != 0x0112 {
			continue
		}
		if t := turn(order.Uint16(b[e+8:])); t >= 1 && t <= 8 {
			return t
		}
		break
	}
	return upright
}

// turned turns a picture.
func turned(src *image.RGBA, t turn) *image.RGBA {
	if t == upright {
		return src
	}
	w, h := src.Rect.Dx(), src.Rect.Dy()
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	if t.swaps() {
		out = image.NewRGBA(image.Rect(0, 0, h, w))
	}
	for y := range h {
		for x := range w {
			dx, dy := t.place(x, y, w, h)
			copy(out.Pix[out.PixOffset(dx, dy):][:4], src.Pix[src.PixOffset(x, y):][:4])
		}
	}
	return out
}

// place is where a pixel goes.
func (t turn) place(x, y, w, h int) (int, int) {
	switch t {
	case 2:
		return w - 1 - x, y
	case 3:
		return w - 1 - x, h - 1 - y
	case 4:
		return x, h - 1 - y
	case 5:
		return y, x
	case 6:
		return h - 1 - y, x
	case 7:
		return h - 1 - y, w - 1 - x
	case 8:
		return y, w - 1 - x
	}
	return x, y
}
