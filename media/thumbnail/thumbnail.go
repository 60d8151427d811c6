package thumbnail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/webp"
)

var (
	// ErrFormat says that the bytes are no picture of a known kind.
	ErrFormat = errors.New("thumbnail: this is no picture that can be made smaller")
	// ErrTooLarge says that the picture has more pixels than may be decoded.
	ErrTooLarge = errors.New("thumbnail: the picture has too many pixels")
)

// maxSide bounds the width and height of a source; together they are bounded by
// Limits.
const maxSide = 1 << 16

// Wish is what is asked for.
type Wish struct {
	Width, Height int  // above 0
	Crop          bool // exactly of this shape; otherwise of the source's
	Animated      bool // moving, if the source moves
}

// Limits bound what is decoded.
type Limits struct{ MaxPixels int }

// Picture is what was made.
type Picture struct {
	Data []byte // nil: the source is as small as was asked for, and is the result
	Type string // such as image/png; the source's if Data is nil
}

// Info is what the first bytes tell of a picture.
type Info struct {
	Type          string
	Width, Height int // as stored, before it is turned upright
}

// format is a kind of picture.
type format struct {
	typ    string
	magic  string // ? stands for any byte
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

var formats = []format{
	{"image/jpeg", "\xff\xd8\xff", jpeg.DecodeConfig, jpeg.Decode},
	{"image/png", "\x89PNG\r\n\x1a\n", png.DecodeConfig, png.Decode},
	{"image/gif", "GIF8?a", gif.DecodeConfig, gif.Decode},
	{"image/webp", "RIFF????WEBPVP8", webp.DecodeConfig, webp.Decode},
}

// sniff finds the format of the bytes, and goes back to their start.
func sniff(r io.ReadSeeker) (*format, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var head [16]byte
	n, err := io.ReadFull(r, head[:])
	if err != nil && err != io.ErrUnexpectedEOF {
		return nil, ErrFormat
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	for i := range formats {
		if matches(formats[i].magic, head[:n]) {
			return &formats[i], nil
		}
	}
	return nil, ErrFormat
}

func matches(magic string, b []byte) bool {
	if len(b) < len(magic) {
		return false
	}
	for i := range len(magic) {
		if magic[i] != '?' && magic[i] != b[i] {
			return false
		}
	}
	return true
}

// Probe tells what a picture is, without decoding it, and goes back to its start.
func Probe(r io.ReadSeeker) (Info, error) {
	f, err := sniff(r)
	if err != nil {
		return Info{}, err
	}
	c, err := f.config(r)
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return Info{}, err
	}
	if c.Width < 1 || c.Height < 1 {
		return Info{}, ErrFormat
	}
	return Info{Type: f.typ, Width: c.Width, Height: c.Height}, nil
}

// Make makes a picture as it is wished. ctx bounds the time.
func Make(ctx context.Context, r io.ReadSeeker, w Wish, l Limits) (*Picture, error) {
	r = &patient{ctx, r}
	f, err := sniff(r)
	if err != nil {
		return nil, err
	}
	info, err := Probe(r)
	if err != nil {
		return nil, err
	}
	if info.Width > maxSide || info.Height > maxSide || info.Width*info.Height > l.MaxPixels {
		return nil, ErrTooLarge
	}
	turn := upright
	frames := 1
	switch f.typ {
	case "image/jpeg":
		turn, err = orientation(r)
	case "image/gif":
		frames, err = countFrames(r, l)
		if errors.Is(err, ErrTooLarge) {
			frames, w.Animated, err = 2, false, nil // its first frame can be shown
		}
	}
	if err != nil {
		return nil, err
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	p := planFor(info, turn, w)
	if !p.shrinks() && turn == upright && (frames == 1 || w.Animated) {
		return &Picture{Type: f.typ}, nil
	}
	if frames > 1 && w.Animated {
		return animate(ctx, r, p)
	}
	src, err := f.decode(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if b := src.Bounds(); b.Dx() != info.Width || b.Dy() != info.Height {
		// A GIF's first frame may be smaller than the picture.
		p = planFor(Info{Width: b.Dx(), Height: b.Dy()}, turn, w)
	}
	out, err := p.apply(ctx, src)
	if err != nil {
		return nil, err
	}
	return encode(turned(out, turn), f.typ)
}

// patient lets reading fail once there is no more time, which ends a decoder.
type patient struct {
	ctx context.Context
	io.ReadSeeker
}

func (p *patient) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.ReadSeeker.Read(b)
}

const jpegQuality = 80

// encode writes PNG for what may be transparent and for drawings, JPEG otherwise.
func encode(img *image.RGBA, source string) (*Picture, error) {
	var b bytes.Buffer
	if source == "image/jpeg" || source == "image/webp" && img.Opaque() {
		err := jpeg.Encode(&b, img, &jpeg.Options{Quality: jpegQuality})
		return &Picture{b.Bytes(), "image/jpeg"}, err
	}
	err := png.Encode(&b, img)
	return &Picture{b.Bytes(), "image/png"}, err
}
