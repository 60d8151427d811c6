package thumbnail

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"testing"
	"time"
)

var limits = Limits{MaxPixels: 20_000_000}

// gradient is a picture whose corners differ: red to the right, green downwards.
func gradient(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.SetRGBA(x, y, color.RGBA{uint8(255 * x / w), uint8(255 * y / h), 0x40, 0xff})
		}
	}
	return img
}

func asJPEG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asPNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// withOrientation puts a note into a JPEG.
func withOrientation(data []byte, t turn) []byte {
	tiff := []byte("Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01")
	tiff = append(tiff, 0, byte(t), 0, 0, 0, 0, 0, 0)
	segment := binary.BigEndian.AppendUint16([]byte{0xff, 0xe1}, uint16(len(tiff)+2))
	return bytes.Join([][]byte{data[:2], segment, tiff, data[2:]}, nil)
}

// animation is a GIF of so many frames.
func animation(t testing.TB, w, h, frames int) []byte {
	t.Helper()
	g := &gif.GIF{}
	for i := range frames {
		img := image.NewPaletted(image.Rect(0, 0, w, h), color.Palette{color.Transparent, color.White, color.RGBA{0xff, 0, 0, 0xff}})
		for p := range img.Pix {
			img.Pix[p] = uint8((p + i) % 3)
		}
		g.Image, g.Delay, g.Disposal = append(g.Image, img), append(g.Delay, 5), append(g.Disposal, gif.DisposalNone)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func size(t *testing.T, p *Picture) (int, int) {
	t.Helper()
	c, _, err := image.DecodeConfig(bytes.NewReader(p.Data))
	if err != nil {
		t.Fatal(err)
	}
	return c.Width, c.Height
}

// spec: client-server#thumbnails
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		w, h, wide, high int
		crop             bool
		wantW, wantH     int // 0: the source itself
	}{
		{4000, 3000, 320, 240, false, 320, 240},
		{4000, 2000, 320, 240, false, 480, 240},
		{2000, 4000, 320, 240, false, 320, 640},
		{4000, 3000, 96, 96, true, 96, 96},
		{300, 3000, 96, 96, true, 96, 96},
		{100, 100, 96, 96, true, 96, 96},
		{100, 50, 96, 96, true, 50, 50},
		{100, 50, 200, 100, false, 0, 0},
		{100, 50, 100, 50, true, 0, 0},
		{1, 5000, 32, 32, false, 0, 0},
		{1, 5000, 32, 32, true, 1, 1},
		{641, 479, 640, 480, false, 0, 0},
		{1000, 1, 10, 10, false, 0, 0},
		{3001, 2003, 640, 480, false, 720, 480},
	} {
		p, err := Make(t.Context(), bytes.NewReader(asPNG(t, gradient(c.w, c.h))), Wish{c.wide, c.high, c.crop, false}, limits)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if c.wantW == 0 {
			if p.Data != nil || p.Type != "image/png" {
				t.Errorf("%+v: a picture was made", c)
			}
			continue
		}
		if p.Data == nil {
			t.Errorf("%+v: the source", c)
			continue
		}
		if w, h := size(t, p); w != c.wantW || h != c.wantH {
			t.Errorf("%+v: %d x %d", c, w, h)
		}
	}
}

// near tells whether a colour is about what it should be.
func near(c color.Color, r, g uint8) bool {
	cr, cg, _, _ := c.RGBA()
	dr, dg := int(cr>>8)-int(r), int(cg>>8)-int(g)
	return dr > -24 && dr < 24 && dg > -24 && dg < 24
}

// Pictures come out upright, whichever way the camera was held, and look like
// their source.
func TestOrientation(t *testing.T) {
	source := asJPEG(t, gradient(400, 200))
	// What is in the top left corner once the picture stands upright.
	corners := map[turn][2]uint8{1: {0, 0}, 2: {255, 0}, 3: {255, 255}, 4: {0, 255}, 5: {0, 0}, 6: {0, 255}, 7: {255, 255}, 8: {255, 0}}
	for turn, corner := range corners {
		p, err := Make(t.Context(), bytes.NewReader(withOrientation(source, turn)), Wish{100, 100, false, false}, limits)
		if err != nil {
			t.Fatal(err)
		}
		img, err := jpeg.Decode(bytes.NewReader(p.Data))
		if err != nil {
			t.Fatal(err)
		}
		b := img.Bounds()
		if wide := b.Dx() > b.Dy(); wide == turn.swaps() {
			t.Errorf("%d: %v", turn, b)
		}
		if got := img.At(2, 2); !near(got, corner[0], corner[1]) {
			t.Errorf("%d: %v in the corner, not %v", turn, got, corner)
		}
		if bytes.Contains(p.Data, []byte("Exif")) {
			t.Errorf("%d: the camera's notes are still there", turn)
		}
	}
	small, err := Make(t.Context(), bytes.NewReader(withOrientation(source, 6)), Wish{1000, 1000, false, false}, limits)
	if err != nil || small.Data == nil {
		t.Errorf("a small picture that lies on its side: %v", err)
	}
}

func TestAnimation(t *testing.T) {
	moving := animation(t, 200, 100, 5)
	p, err := Make(t.Context(), bytes.NewReader(moving), Wish{50, 50, true, true}, limits)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gif.DecodeAll(bytes.NewReader(p.Data))
	if err != nil || p.Type != "image/gif" || len(g.Image) != 5 || g.Delay[4] != 5 || g.Config.Width != 50 {
		t.Errorf("%s %v", p.Type, err)
	}
	for _, wish := range []Wish{{50, 50, true, false}, {500, 500, false, false}} {
		still, err := Make(t.Context(), bytes.NewReader(moving), wish, limits)
		if err != nil || still.Type != "image/png" || still.Data == nil {
			t.Errorf("%+v: %+v %v", wish, still, err)
		}
	}
	whole, err := Make(t.Context(), bytes.NewReader(moving), Wish{500, 500, false, true}, limits)
	if err != nil || whole.Data != nil || whole.Type != "image/gif" {
		t.Errorf("%+v %v", whole, err)
	}
}

// hugePNG is a file of few bytes that claims to be huge.
func hugePNG(w, h uint32) []byte {
	chunk := func(kind string, data []byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
		body := append([]byte(kind), data...)
		return binary.BigEndian.AppendUint32(append(b, body...), crc32.ChecksumIEEE(body))
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	var zero bytes.Buffer
	z := zlib.NewWriter(&zero)
	_, _ = z.Write(make([]byte, 1<<20))
	_ = z.Close()
	return bytes.Join([][]byte{
		[]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(head, 8, 6, 0, 0, 0)), chunk("IDAT", zero.Bytes()), chunk("IEND", nil),
	}, nil)
}

// THREATS M2: bombs are refused before they are decoded, and what is broken is an
// error.
func TestHostilePictures(t *testing.T) {
	tiny := animation(t, 1, 1, 1)
	frame := tiny[bytes.IndexByte(tiny, 0x2c) : len(tiny)-1]
	bomb := append(bytes.Clone(tiny[:len(tiny)-1]), bytes.Repeat(frame, 100_000)...)
	wide := bytes.Clone(animation(t, 10, 10, 3))
	binary.LittleEndian.PutUint16(wide[6:], 65535)
	binary.LittleEndian.PutUint16(wide[8:], 65535)
	whole := asPNG(t, gradient(500, 500))
	photo := asJPEG(t, gradient(500, 500))
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"30,000 x 30,000 PNG":     {hugePNG(30_000, 30_000), ErrTooLarge},
		"2^31 wide PNG":           {hugePNG(1<<31-1, 1), nil},
		"PNG of no width":         {hugePNG(0, 5), ErrFormat},
		"GIF of 65535 x 65535":    {wide, ErrTooLarge},
		"half a PNG":              {whole[:len(whole)/2], ErrFormat},
		"a PNG's header":          {whole[:40], ErrFormat},
		"half a JPEG":             {photo[:30], ErrFormat},
		"SVG":                     {[]byte(`<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>`), ErrFormat},
		"HTML":                    {[]byte("<html>"), ErrFormat},
		"nothing":                 {nil, ErrFormat},
		"PNG called GIF":          {append([]byte("GIF89a"), whole...), nil},
		"WebP of nothing":         {[]byte("RIFF\x00\x00\x00\x00WEBPVP8 "), ErrFormat},
		"XCF, PSD, EPS, TIFF":     {[]byte("%!PS-Adobe-3.0 EPSF-3.0\n"), ErrFormat},
		"a JPEG with a lie":       {withOrientation(photo, 200)[:600], nil},
		"a PNG cut by one byte":   {whole[:len(whole)-13], ErrFormat},
		"a JPEG of 65535 x 65535": {lying(photo), ErrTooLarge},
	} {
		began := time.Now()
		p, err := Make(t.Context(), bytes.NewReader(c.data), Wish{32, 32, false, true}, limits)
		if err == nil && p.Data == nil || err == nil && c.want != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v %v", name, p, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s takes %v", name, took)
		}
	}
	// Of too many frames the first is shown.
	p, err := Make(t.Context(), bytes.NewReader(bomb), Wish{1, 1, true, true}, limits)
	if err != nil || p.Type != "image/png" {
		t.Errorf("100,000 frames: %+v %v", p, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Make(ctx, bytes.NewReader(whole), Wish{32, 32, false, false}, limits); err == nil {
		t.Error("there was no time, and still there is a picture")
	}
}

// lying makes a JPEG claim to be as large as a JPEG can be.
func lying(photo []byte) []byte {
	b := bytes.Clone(photo)
	at := bytes.Index(b, []byte{0xff, 0xc0})
	binary.BigEndian.PutUint16(b[at+5:], 65535)
	binary.BigEndian.PutUint16(b[at+7:], 65535)
	return b
}

// Whatever the bytes are: a picture within the wish, or an error.
func FuzzMake(f *testing.F) {
	f.Add(asPNG(f, gradient(20, 10)), 8, 8, true)
	f.Add(withOrientation(asJPEG(f, gradient(20, 10)), 6), 8, 4, false)
	f.Add(animation(f, 6, 6, 3), 3, 3, false)
	f.Add([]byte("RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"), 1, 1, true)
	f.Add(hugePNG(30_000, 30_000), 32, 32, false)
	f.Fuzz(func(t *testing.T, data []byte, w, h int, crop bool) {
		if w < 1 || h < 1 || w > 64 || h > 64 {
			return
		}
		p, err := Make(t.Context(), bytes.NewReader(data), Wish{w, h, crop, true}, Limits{MaxPixels: 100_000})
		if err != nil || p.Data == nil {
			return
		}
		if _, _, err := image.DecodeConfig(bytes.NewReader(p.Data)); err != nil {
			t.Errorf("a thumbnail that is none: %v", err)
		}
	})
}

// A photograph of 12 megapixels.
func BenchmarkPhoto(b *testing.B) {
	data := asJPEG(b, gradient(4000, 3000))
	for b.Loop() {
		if _, err := Make(b.Context(), bytes.NewReader(data), Wish{320, 240, false, false}, Limits{MaxPixels: 50_000_000}); err != nil {
			b.Fatal(err)
		}
	}
}
