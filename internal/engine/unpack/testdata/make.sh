#!/bin/sh
# Makes the fixtures of this directory from note.txt and program.bin (written by
# the helpers of the tests) with the usual tools. Run in a directory that holds
# the two files; nothing but the committed results is needed to run the tests.
set -eu
tar --owner=0 --group=0 --mtime=@0 -cf a.tar note.txt program.bin
xz -k a.tar
lzma -k a.tar
bzip2 -k a.tar
for filter in x86 arm armthumb arm64 powerpc sparc; do
	xz -k -S ".$filter.xz" --check=sha256 --$filter --lzma2=preset=6 a.tar
done
xz -k -S .delta.xz --check=crc32 --delta=dist=4 --lzma2=preset=6 a.tar
xz -k -S .blocks.xz --check=none --block-size=4096 a.tar
{ xz -c note.txt; printf '\0\0\0\0'; xz -c --check=crc32 note.txt; } >streams.xz
lz4 -q -l a.tar a.tar.legacy.lz4
for method in Copy LZMA LZMA2 Deflate BZip2 PPMd; do
	7z a -bd -m0=$method "$method.7z" note.txt program.bin >/dev/null
done
for filter in BCJ BCJ2 ARM ARMT PPC SPARC Delta:4; do
	7z a -bd -m0="$filter" -m1=LZMA "filter-$(echo $filter | tr -d :).7z" note.txt program.bin >/dev/null
done
7z a -bd -ms=off single.7z note.txt program.bin >/dev/null
7z a -bd -psecret encrypted.7z note.txt program.bin >/dev/null
7z a -bd -psecret -mhe=on encrypted-names.7z note.txt program.bin >/dev/null
for method in Deflate Deflate64 BZip2 LZMA XZ PPMd; do
	7z a -bd -tzip -mm=$method "$method.zip" note.txt program.bin >/dev/null
done
zip -q -P secret encrypted.zip note.txt program.bin
7z a -bd -tzip -psecret -mem=AES256 aes.zip note.txt program.bin >/dev/null
zip -q - note.txt program.bin | cat >streamed.zip
for format in newc crc odc bin; do
	printf 'note.txt\nprogram.bin\n' | cpio --quiet -o -H $format >"$format.cpio"
done
truncate -s 3000000 sparse
printf 'found in a hole' | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none
tar --format=gnu -Scf sparse-gnu.tar sparse
tar --format=posix -Scf sparse-pax.tar sparse
tar --format=v7 -cf v7.tar note.txt program.bin
rm -f sparse
