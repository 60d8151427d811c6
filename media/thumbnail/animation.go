package thumbnail

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	stddraw "image/draw"
	"image/gif"
	"io"
)

const (
	maxFrames    = 500
	maxOutPixels = 20_000_000 // of all frames of an animation that is made
)

// countFrames walks through a GIF without decoding it. It fails with ErrTooLarge if
// there is more than may be decoded; of a broken one it counts what is readable.
func countFrames(r io.ReadSeeker, l Limits) (int, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	g := gifWalk{Reader: bufio.NewReaderSize(r, 64<<10)}
	head := g.take(13)
	if g.err != nil {
		return 1, nil
	}
	g.table(head[10])
	frames, pixels := 0, 0
	for g.err == nil {
		switch kind := g.take(1)[0]; kind {
		case 0x21: // an extension
			g.take(1)
			g.blocks()
		case 0x2c: // a frame
			d := g.take(9)
			frames++
			pixels += (int(d[4]) | int(d[5])<<8) * (int(d[6]) | int(d[7])<<8)
			if frames > maxFrames || pixels > l.MaxPixels {
				return frames, ErrTooLarge
			}
			g.table(d[8])
			g.take(1)
			g.blocks()
		default:
			return max(frames, 1), nil
		}
	}
	return max(frames, 1), nil
}

// gifWalk reads the blocks of a GIF. After an error everything is zero.
type gifWalk struct {
	*bufio.Reader
	buf [16]byte
	err error
}

func (g *gifWalk) take(n int) []byte {
	b := g.buf[:n]
	clear(b)
	if g.err == nil {
		_, g.err = io.ReadFull(g.Reader, b)
	}
	return b
}

func (g *gifWalk) skip(n int) {
	if g.err == nil {
		_, g.err = g.Discard(n)
	}
}

// table skips the colours that the flags announce.
func (g *gifWalk) table(flags byte) {
	if flags&0x80 != 0 {
		g.skip(3 << (1 + flags&7))
	}
}

// blocks skips data up to its end.
func (g *gifWalk) blocks() {
	for g.err == nil {
		n := g.take(1)[0]
		if n == 0 {
			return
		}
		g.skip(int(n))
	}
}

// animate makes every frame smaller.
func animate(ctx context.Context, r io.Reader, p plan) (*Picture, error) {
	src, err := gif.DecodeAll(r)
	if err != nil || len(src.Image) == 0 {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	out := &gif.GIF{LoopCount: src.LoopCount, Config: image.Config{Width: p.width, Height: p.height}}
	canvas := image.NewRGBA(image.Rect(0, 0, src.Config.Width, src.Config.Height))
	saved := image.NewRGBA(canvas.Rect)
	step := (len(src.Image)*p.width*p.height)/maxOutPixels + 1 // of long ones not every frame is shown
	delay := 0
	for i, frame := range src.Image {
		disposal := src.Disposal[i]
		if disposal == gif.DisposalPrevious {
			copy(saved.Pix, canvas.Pix)
		}
		stddraw.Draw(canvas, frame.Rect, frame, frame.Rect.Min, stddraw.Over)
		delay += src.Delay[i]
		if i%step == 0 {
			small, err := p.apply(ctx, canvas)
			if err != nil {
				return nil, err
			}
			out.Image = append(out.Image, quantize(small, frame.Palette))
			out.Delay = append(out.Delay, 0)
			out.Disposal = append(out.Disposal, gif.DisposalBackground)
		}
		out.Delay[len(out.Delay)-1] = delay
		if (i+1)%step == 0 {
			delay = 0
		}
		switch disposal {
		case gif.DisposalBackground:
			stddraw.Draw(canvas, frame.Rect, image.Transparent, image.Point{}, stddraw.Src)
		case gif.DisposalPrevious:
			copy(canvas.Pix, saved.Pix)
		}
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, out); err != nil {
		return nil, err
	}
	return &Picture{b.Bytes(), "image/gif"}, nil
}

// quantize gives each pixel the nearest of the frame's own colours.
func quantize(img *image.RGBA, colors color.Palette) *image.Paletted {
	pal := append(color.Palette{}, colors[:min(len(colors), 255)]...)
	for i, c := range pal {
		if _, _, _, a := c.RGBA(); a == 0 {
			pal[i] = color.RGBA{A: 0xff} // one colour alone is transparent: the last
		}
	}
	clearIndex := uint8(len(pal))
	pal = append(pal, color.RGBA{})
	out := image.NewPaletted(img.Rect, pal)
	var nearest [1 << 15]uint16 // by five bits of each colour; 0 is not looked up yet
	for i := range out.Pix {
		p := img.Pix[4*i : 4*i+4]
		if p[3] < 0x80 {
			out.Pix[i] = clearIndex
			continue
		}
		key := int(p[0]>>3)<<10 | int(p[1]>>3)<<5 | int(p[2]>>3)
		if nearest[key] == 0 {
			nearest[key] = uint16(pal[:clearIndex].Index(color.RGBA{p[0], p[1], p[2], 0xff})) + 1
		}
		out.Pix[i] = uint8(nearest[key] - 1)
	}
	return out
}
