package thumbnail

import (
	"context"
	"image"
	stddraw "image/draw"
	"math"

	"golang.org/x/image/draw"
)

// plan is which part of a source becomes how large a picture, both as the source
// is stored.
type plan struct {
	from          image.Rectangle // relative to the source's corner
	width, height int
}

// planFor keeps to what was wished as closely as the source allows.
// spec: client-server#thumbnails
func planFor(info Info, turn turn, w Wish) plan {
	wide, high := w.Width, w.Height
	if turn.swaps() {
		wide, high = high, wide
	}
	from := image.Rect(0, 0, info.Width, info.Height)
	if w.Crop {
		from = cropped(info.Width, info.Height, wide, high)
	}
	f := min(1, max(float64(wide)/float64(from.Dx()), float64(high)/float64(from.Dy())))
	side := func(n int) int { return max(1, int(math.Ceil(float64(n)*f-1e-6))) }
	return plan{from, side(from.Dx()), side(from.Dy())}
}

// cropped is the largest part in the middle that has the wished shape.
func cropped(width, height, wide, high int) image.Rectangle {
	w, h := width, height
	if width*high > height*wide {
		w = max(1, int(math.Round(float64(height)*float64(wide)/float64(high))))
	} else {
		h = max(1, int(math.Round(float64(width)*float64(high)/float64(wide))))
	}
	w, h = min(w, width), min(h, height)
	x, y := (width-w)/2, (height-h)/2
	return image.Rect(x, y, x+w, y+h)
}

func (p plan) shrinks() bool {
	return p.from.Min != image.Point{} || p.width != p.from.Dx() || p.height != p.from.Dy()
}

// apply makes the picture: it averages whole blocks of pixels first, which is
// cheap, and leaves the last step to a better filter.
func (p plan) apply(ctx context.Context, src image.Image) (*image.RGBA, error) {
	from := p.from.Add(src.Bounds().Min)
	block := max(1, min(from.Dx()/p.width, from.Dy()/p.height)/2)
	small, err := blocks(ctx, src, from, block)
	if err != nil {
		return nil, err
	}
	out := image.NewRGBA(image.Rect(0, 0, p.width, p.height))
	draw.CatmullRom.Scale(out, out.Bounds(), small, small.Bounds(), draw.Src, nil)
	return out, nil
}

// blocks averages blocks of n by n pixels.
func blocks(ctx context.Context, src image.Image, from image.Rectangle, n int) (*image.RGBA, error) {
	out := image.NewRGBA(image.Rect(0, 0, from.Dx()/n, from.Dy()/n))
	band := image.NewRGBA(image.Rect(0, 0, from.Dx(), n))
	sums := make([]uint32, 4*out.Rect.Dx())
	ycc, _ := src.(*image.YCbCr)
	for y := range out.Rect.Dy() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if ycc != nil {
			averageYCbCr(out, ycc, from, y, n, sums)
			continue
		}
		stddraw.Draw(band, band.Rect, src, image.Pt(from.Min.X, from.Min.Y+y*n), stddraw.Src)
		average(out, band, y, n, sums)
	}
	return out, nil
}

// average makes row y of out from a band of n rows.
func average(out, band *image.RGBA, y, n int, sums []uint32) {
	clear(sums)
	wide := out.Rect.Dx()
	for row := range n {
		pix := band.Pix[row*band.Stride:]
		for x := range wide {
			s, p := sums[4*x:4*x+4], pix[4*x*n:4*(x+1)*n]
			for i := 0; i < len(p); i += 4 {
				s[0] += uint32(p[i])
				s[1] += uint32(p[i+1])
				s[2] += uint32(p[i+2])
				s[3] += uint32(p[i+3])
			}
		}
	}
	area := uint32(n * n)
	dst := out.Pix[y*out.Stride:]
	for i, s := range sums {
		dst[i] = uint8((s + area/2) / area)
	}
}

// averageYCbCr is average for what JPEG decodes to: brightness and colour are
// averaged apart, and made red, green and blue only then.
func averageYCbCr(out *image.RGBA, src *image.YCbCr, from image.Rectangle, y, n int, sums []uint32) {
	clear(sums)
	wide := out.Rect.Dx()
	// Of large blocks, every other row is as good as all.
	skip := 1
	if n >= 4 {
		skip = 2
	}
	area := uint32(n * ((n + skip - 1) / skip))
	for row := 0; row < n; row += skip {
		at := from.Min.Y + y*n + row
		line := src.Y[src.YOffset(from.Min.X, at):]
		for x := range wide {
			sum := uint32(0)
			for _, v := range line[x*n : (x+1)*n] {
				sum += uint32(v)
			}
			sums[4*x] += sum
		}
	}
	// Colours are stored more coarsely, and some of them are as good as all.
	shift := colourShift(src.SubsampleRatio)
	step := max(1<<shift, (n+2)/3)
	taken := uint32(0)
	for row := 0; row < n; row += step {
		base := src.COffset(from.Min.X, from.Min.Y+y*n+row) - from.Min.X>>shift
		for x := range wide {
			at := from.Min.X + x*n
			for i := at; i < at+n; i += step {
				c := base + i>>shift
				sums[4*x+1] += uint32(src.Cb[c])
				sums[4*x+2] += uint32(src.Cr[c])
			}
		}
		taken += uint32((n + step - 1) / step)
	}
	dst := out.Pix[y*out.Stride:]
	for x := range wide {
		s := sums[4*x : 4*x+4]
		dst[4*x], dst[4*x+1], dst[4*x+2] = rgb(uint8((s[0]+area/2)/area), uint8((s[1]+taken/2)/taken), uint8((s[2]+taken/2)/taken))
		dst[4*x+3] = 0xff
	}
}

// colourShift is how many pixels of a row share a colour, as a power of two.
func colourShift(r image.YCbCrSubsampleRatio) int {
	switch r {
	case image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420:
		return 1
	case image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410:
		return 2
	}
	return 0
}
